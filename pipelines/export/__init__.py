"""``ccnn export``: a trained network on a fixed grid as one file that needs nothing of this package."""

from ccnn_irregular.pipelines.export.command import run

__all__ = ["run"]
