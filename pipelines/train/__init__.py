"""What all tasks share: command line, run folder, modules, data, evaluation, figures."""
