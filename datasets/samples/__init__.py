"""Samples as the data sets return them, and what the literature does to whole data sets before training.

=====================  =============================================================================
``GriddedSamples``     labelled samples on one grid: images, recordings of one length, volumes
``RaggedSeries``       labelled series of unequal length
``RaggedVolumes``      labelled samples that each lie on a grid of their own
``LabelledClouds``     clouds with a label for each point
``ShapePool``          labelled shapes that clouds of any number of points are drawn from
``FieldSet``           fields as places with values, and the way back to coordinates and units
=====================  =============================================================================

All of them, ``physionet2012.Cohort`` and ``decathlon.VolumePairs`` follow one protocol, ``Samples``: ``labels``,
``classes``, ``unit``, ``len(samples)`` and ``samples.describe()``.
"""

from ccnn_irregular.datasets.samples.clouds import LabelledClouds
from ccnn_irregular.datasets.samples.fields import FieldSet
from ccnn_irregular.datasets.samples.gridded import GriddedSamples
from ccnn_irregular.datasets.samples.parts import Parts, split_stratified
from ccnn_irregular.datasets.samples.protocol import Samples
from ccnn_irregular.datasets.samples.sampling import (
    as_sequences,
    average_cells,
    drop_blocks,
    drop_samples,
    permutation,
    permute_sequences,
    resize_images,
)
from ccnn_irregular.datasets.samples.series import RaggedSeries
from ccnn_irregular.datasets.samples.shapes import ShapePool
from ccnn_irregular.datasets.samples.volumes import RaggedVolumes

__all__ = [
    "FieldSet",
    "GriddedSamples",
    "LabelledClouds",
    "Parts",
    "RaggedSeries",
    "RaggedVolumes",
    "Samples",
    "ShapePool",
    "as_sequences",
    "average_cells",
    "drop_blocks",
    "drop_samples",
    "permutation",
    "permute_sequences",
    "resize_images",
    "split_stratified",
]
