"""Classes of the points of your own clouds, in the files that scanners write."""
