"""Classes or numbers of irregular series in one's own tables."""
