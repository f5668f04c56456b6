"""A class for every voxel of a volume."""
