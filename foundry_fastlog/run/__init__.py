"""The contents of a run's directory: file names, starts, run.json, schemas."""
