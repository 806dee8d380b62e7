"""The cost of device scalars on a GPU: `python -m benchmarks.gpu`; see README.md."""
