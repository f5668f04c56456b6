"""A class for each point of a cloud."""
