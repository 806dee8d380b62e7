"""Reading runs: this package's native reader beside DuckDB and polars, on the same files."""
