"""Fields from scattered observations."""
