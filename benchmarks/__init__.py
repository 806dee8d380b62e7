"""Benchmarks of foundry_fastlog: peers, measures, gates, and the runner that writes the tables."""
