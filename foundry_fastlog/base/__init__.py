"""Text, numbers, checks of arguments, locks: knows no run."""
