"""``ccnn inspect FILE | FOLDER``: what it holds, what looks wrong in it, and the command to type next."""

from ccnn_irregular.pipelines.inspection.found import Found
from ccnn_irregular.pipelines.inspection.paths import inspected, run

__all__ = ["Found", "inspected", "run"]
