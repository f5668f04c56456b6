"""Bridges from other packages' data to domains and back; each is imported by its own name, none with the package.

``ccnn_irregular.adapters.xarray`` registers the accessor ``.ccnn`` on DataArrays and Datasets;
``ccnn_irregular.adapters.nifti`` reads and writes medical volumes.
"""
