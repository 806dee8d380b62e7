"""Figures are shown and kept as those of the crash tests."""

from crash.conftest import figures, pytest_terminal_summary

__all__ = ["figures", "pytest_terminal_summary"]
