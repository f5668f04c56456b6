"""Classes of shapes given as point clouds."""
