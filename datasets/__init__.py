"""Data sets: the official files become samples in physical units.

``load``, ``fetch`` and ``describe`` serve every data set by its name, ``names`` lists them and ``register`` adds one;
each module also has functions of its own. Packages that only some of them need (torch-geometric, xarray, h5py for
caches, pooch for downloads) are imported where they are used.
"""

from ccnn_irregular.datasets.registry import DataSet, describe, fetch, get, load, names, register

__all__ = ["DataSet", "describe", "fetch", "get", "load", "names", "register"]
