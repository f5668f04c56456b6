"""Fields from scattered or gappy observations: values anywhere, with standard deviations."""

from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.module import FieldReconstruction
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.sizes import FieldSizes, fitting_network

__all__ = [
    "FieldAxis",
    "FieldBatch",
    "FieldDataModule",
    "FieldNetwork",
    "FieldReconstruction",
    "FieldSizes",
    "fitting_network",
]
