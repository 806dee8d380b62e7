"""Exit codes: 130 is what a shell expects after Ctrl-C, 141 after a closed pipe."""

__all__ = ["CLOSED_PIPE", "INTERRUPTED", "OK", "PROBLEM", "USAGE"]

OK, PROBLEM, USAGE, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
