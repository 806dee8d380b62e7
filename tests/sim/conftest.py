"""Figures are shown and kept as those of the crash tests."""

from crash.conftest import figures

__all__ = ["figures"]
