"""The measures: each module has `run(...) -> dict` and runs in a fresh interpreter."""
