"""Training, evaluation and the ``ccnn`` command line.

Nothing is imported here: ``ccnn --help`` and the errors of a mistyped command must not wait for PyTorch and Lightning.

=================  =====================================================================================
``cli``            the ``ccnn`` command: finds the subcommand, the configuration and the lists in its arguments
``training_cli``   ``ccnn fit | validate | test | predict`` on Lightning
``run_folder``     what a run leaves on disk: checkpoints, configuration, history; resuming
``icu_data``       ragged batches of stays, the split, the Lightning data module
``icu_network``    the network of the ICU task
``training``       the Lightning module: loss, optimiser, schedule
``evaluation``     metrics, bootstrap intervals, the table, the JSON
``baselines``      gradient-boosted trees on hand-made statistics
``figures``        the plots of a test
``configs``        packaged configurations, found by name
=================  =====================================================================================
"""
