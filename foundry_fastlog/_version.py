"""The package's version: the one place that states it, and free to import."""

__version__ = "0.1.0"
