"""Statistics of a run: sums, comparisons, shares of time. Nothing is drawn here."""
