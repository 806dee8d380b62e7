"""Where a run's records can go beside its own files. Each sink needs a package of its own."""
