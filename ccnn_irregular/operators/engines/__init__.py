"""The ways to evaluate the sum, one file each, and what they have in common."""
