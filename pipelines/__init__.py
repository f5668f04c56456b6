"""Training, evaluation and the ``ccnn`` command line.

Nothing is imported here: ``ccnn --help`` and the errors of a mistyped command must not wait for PyTorch and Lightning.

===============  ====================================================================================================
``cli``          the ``ccnn`` command: finds the subcommand and the configuration in its arguments
``configs``      packaged configurations, found by name; each names its task
``train``        what all tasks share: command line, run folder, module, data, evaluation, figures, registry
``tasks``        one folder a task
``consistency``  ``ccnn consistency``
``machine``      ``ccnn machine``
``demo``         ``ccnn demo``
===============  ====================================================================================================

The same names in each folder of a task: ``data`` (parts and batches, a ``TaskData``), ``network``, ``module`` (loss and
metrics, a ``TaskModule``), ``task`` (what its commands add, a ``Task``), ``figures``, ``baselines``.

========================  ===========================================================================================
``risk``                  a binary outcome of ragged series; metrics with intervals, boosted trees beside it
``forecast``              values of all variables of irregular series at asked times after a cut
``classification``        series, images and volumes
``segmentation``          a class for every voxel, NIfTI to NIfTI
``field``                 values anywhere from scattered observations
``downscale``             fine fields from coarse ones, files larger than memory
``cloud_classification``  shapes given as points
``cloud_segmentation``    a class for every point
========================  ===========================================================================================
"""
