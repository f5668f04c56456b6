"""Training, evaluation and the ``ccnn`` command line.

Nothing is imported here: ``ccnn --help`` and the errors of a mistyped command must not wait for PyTorch and Lightning.

==================  =================================================================================================
``cli``             the ``ccnn`` command: finds the subcommand, the configuration and the lists in its arguments
``configs``         packaged configurations, found by name; each names its task
``training_cli``    ``ccnn fit | validate | test | predict`` on Lightning, whatever is trained
``run_folder``      what a run leaves on disk: checkpoints, configuration, history; resuming
``training``        what all Lightning modules share: optimiser, schedule, what is saved
``batches``         batches in an order that a resumed run repeats
``samples_data``    data sets, parts, batches and other samplings of labelled samples
``figures``         what all plots share; training curves
``reports``         JSON and text files, versions
``predict_files``   fields from file to file: larger than memory, resumable
``consistency``     ``ccnn consistency``
``machine``         ``ccnn machine``
``demo``            ``ccnn demo``
==================  =================================================================================================

A folder for each kind of task, with the same names in each: ``data`` (parts, batches, the Lightning data module),
``network``, ``training`` (the Lightning module), ``cli`` (what its commands add), ``figures``.

==================  =================================================================================================
``icu``             task "risk": a binary outcome of ragged series; metrics with intervals, boosted trees beside it
``classification``  task "classification": series, images and volumes
``segmentation``    task "segmentation": a class for every voxel, NIfTI to NIfTI
``field``           task "field": values anywhere from scattered observations
``downscale``       task "downscale": fine fields from coarse ones
``clouds``          tasks "cloud_classification" and "cloud_segmentation"
==================  =================================================================================================
"""
