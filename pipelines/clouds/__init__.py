"""Point clouds: classes of shapes, classes of points."""
