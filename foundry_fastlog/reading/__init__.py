"""The lines of a run, in order, whole, as records or columns."""
