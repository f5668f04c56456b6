"""Data sets, one module each: the official files become ragged samples in physical units.

Packages needed only for some steps (h5py for caches, pooch for downloads) are imported where they are used.
"""
