"""The simulation: worlds in one process. What it is made of: docs/design.md."""
