"""Fine fields from coarse ones."""
