"""Training, evaluation and the ``ccnn`` command line.

Nothing is imported here: ``ccnn --help`` and the errors of a mistyped command must not wait for PyTorch and Lightning.

==========================  =====================================================================================
``cli``                     the ``ccnn`` command: finds the subcommand, the configuration and the lists in its arguments
``training_cli``            ``ccnn fit | validate | test | predict`` on Lightning, whatever is trained
``run_folder``              what a run leaves on disk: checkpoints, configuration, history; resuming
``training``                what all Lightning modules share: optimiser, schedule; the module of a binary outcome
``batches``                 batches in an order that a resumed run repeats
``risk_cli``                the commands for the ICU task
``icu_data``                ragged batches of stays, the split, the Lightning data module
``icu_network``             the network of the ICU task
``evaluation``              metrics, bootstrap intervals, the table, the JSON
``baselines``               gradient-boosted trees on hand-made statistics
``figures``                 the plots of a risk's test, and training curves
``classification_cli``      the commands for classes of series and images, tests at other samplings
``samples_data``            data sets, parts, batches and other samplings of labelled samples
``augmentation``            random changes of training batches
``classification_network``  the CCNN as a classifier of any samples; a network with fixed kernels
``classification``          the Lightning module of a classification
``classification_figures``  confusion matrix, accuracy by sampling
``configs``                 packaged configurations, found by name
==========================  =====================================================================================
"""
