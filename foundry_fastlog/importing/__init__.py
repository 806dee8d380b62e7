"""Runs that other tools have recorded, taken over into runs of this package."""
