"""Overhead gates: ratios measured in one run, with bounds that CI enforces."""
