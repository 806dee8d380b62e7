"""Text, numbers, argument checks and locks; knows nothing about runs."""
