"""What is done with values once they are read: rates of recordings, features of terrain, interpolation, moments."""
