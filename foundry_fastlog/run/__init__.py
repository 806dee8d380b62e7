"""What lies in a run's directory: file names, starts, run.json, schemas."""
