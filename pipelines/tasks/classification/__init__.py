"""Classes of series, images and volumes."""
