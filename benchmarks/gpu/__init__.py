"""What device scalars cost on a GPU; `python -m benchmarks.gpu`, see README.md here."""
