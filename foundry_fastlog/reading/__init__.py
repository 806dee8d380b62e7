"""Read the lines of a run, in order and complete, as records or columns."""
