"""Risk of a binary outcome from an intensive-care stay."""
