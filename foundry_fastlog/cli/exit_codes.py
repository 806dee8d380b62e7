"""Exit codes: shells expect 130 after Ctrl-C and 141 after a closed pipe."""

__all__ = ["CLOSED_PIPE", "INTERRUPTED", "OK", "PROBLEM", "USAGE"]

OK, PROBLEM, USAGE, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
