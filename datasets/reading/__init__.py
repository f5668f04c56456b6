"""What readers of files share: finding and unpacking them, downloads with checksums, a cache of what was read."""
