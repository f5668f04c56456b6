"""Values of all variables at asked times after a cut, from irregular series."""
