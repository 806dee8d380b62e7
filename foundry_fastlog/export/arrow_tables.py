"""Write streams of runs by pyarrow: Arrow IPC files, Parquet files and datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import orjson

from foundry_fastlog.export.result import NamedRun, Tally
from foundry_fastlog.export.tables import StreamTable, column_names
from foundry_fastlog.reading.columns import Columns

if TYPE_CHECKING:  # an optional package
    import pyarrow as pa

__all__ = [
    "partition_of",
    "retype",
    "schema_of",
    "write_dataset",
    "write_ipc",
    "write_parquet",
    "write_part",
    "write_rows",
]

# A multiple of the 2,048 rows that DuckDB reads at once; its own row groups have as many.
_GROUP_ROWS = 122_880
_IPC_ROWS = 65_536
#: Streams whose rows have steps; those of the others belong to moments.
_STEPPED = ("metrics", "performance")
_FACTS = ("name", "created", "config", "git_hash")


def write_ipc(table: StreamTable, handle: BinaryIO, tally: Tally) -> None:
    """Write a stream as an Arrow IPC file, which others map into memory.

    Args:
        table: The rows, in the order in which they were read.
        handle: Receives the file.
        tally: Told of what changes.
    """
    import pyarrow as pa

    schema = schema_of(table.kinds, [one for one, _ in table.parts()])
    with pa.ipc.new_file(handle, schema) as writer:
        for one, columns in table.parts():
            writer.write_table(_conform(one, columns, schema, tally), max_chunksize=_IPC_ROWS)


def write_parquet(table: StreamTable, handle: BinaryIO, tally: Tally) -> None:
    """Write a stream as a Parquet file: runs after each other, each with its rows by step.

    Args:
        table: The rows.
        handle: Receives the file.
        tally: Told of what changes.
    """
    import pyarrow.parquet as pq

    schema = schema_of(table.kinds, table.runs)
    with pq.ParquetWriter(handle, schema, compression="zstd") as writer:
        for one, columns in table.parts():
            rows = _by_step(table.stream, _conform(one, columns, schema, tally))
            writer.write_table(rows, row_group_size=_GROUP_ROWS)


def write_dataset(table: StreamTable, directory: Path, tally: Tally) -> None:
    """Write a stream as Parquet files below ``run=NAME/rank=N``, as Hive names partitions.

    Args:
        table: The rows.
        directory: Receives the directories.
        tally: Told of what changes.
    """
    for one in table.runs:
        for rank in one.run.ranks:
            columns = one.run.arrow(table.stream, ranks=rank, starts=one.starts)
            if not columns.rows:
                continue
            place = directory / partition_of(one.name, rank)
            place.mkdir(parents=True)
            schema = schema_of(table.kinds, [one])
            write_part(one, table.stream, columns, schema, place / "part-0.parquet", tally)


def partition_of(name: str, rank: int) -> str:
    """Return where the rows of a rank of a run are in a dataset."""
    return f"run={quote(name, safe='')}/rank={rank}"


def write_part(
    one: NamedRun, stream: str, columns: Columns, schema: pa.Schema, path: Path, tally: Tally
) -> None:
    """Write rows of one rank of a run as a file of a dataset: by step, with statistics.

    Args:
        one: The run.
        stream: The stream.
        columns: Its rows.
        schema: The columns of the file; those that a partition's path says are left out.
        path: The file.
        tally: Told of what changes.
    """
    for name in ("run", "rank"):
        if (place := schema.get_field_index(name)) >= 0:
            schema = schema.remove(place)
    write_rows(_by_step(stream, _conform(one, columns, schema, tally)), path)


def write_rows(rows: pa.Table, path: Path) -> None:
    """Write a file of a dataset."""
    import pyarrow.parquet as pq

    pq.write_table(rows, path, row_group_size=_GROUP_ROWS, compression="zstd")


def schema_of(kinds: Mapping[str, str], runs: list[NamedRun]) -> pa.Schema:
    """Return the columns of a table, with what its runs say of themselves.

    Args:
        kinds: What each column holds; see ``Columns.to_numpy``.
        runs: The runs.
    """
    import pyarrow as pa

    types = {
        "time": pa.timestamp("us", "UTC"),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "text": pa.large_string(),
        "null": pa.null(),
    }
    facts = {
        one.name: {name: one.run.info[name] for name in _FACTS if name in one.run.info}
        for one in runs
    }
    return pa.schema(
        [(name, types[kind]) for name, kind in kinds.items()],
        {"foundry_fastlog.runs": orjson.dumps(facts)},
    )


def _conform(one: NamedRun, columns: Columns, schema: pa.Schema, tally: Tally) -> pa.Table:
    """Return the rows of a run in the columns of all."""
    import pyarrow as pa

    rows = columns.to_arrow()
    places = {column: name for name, column in column_names(columns).items()}
    found: list[Any] = []
    for field in schema:
        if field.name == "run":
            found.append(pa.repeat(pa.scalar(one.name, field.type), rows.num_rows))
        elif field.name in places:
            found.append(_fit(rows[places[field.name]], field, tally))
        else:
            found.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(found, schema=schema)


def retype(rows: pa.Table, kinds: Mapping[str, str], tally: Tally) -> pa.Table:
    """Return rows whose columns hold what others of a dataset do.

    Args:
        rows: The rows.
        kinds: What each column has to hold.
        tally: Told of what changes.
    """
    import pyarrow as pa

    schema = schema_of(kinds, []).with_metadata(rows.schema.metadata)
    return pa.table([_fit(rows[field.name], field, tally) for field in schema], schema=schema)


def _fit(column: pa.ChunkedArray, field: pa.Field, tally: Tally) -> pa.ChunkedArray:
    """Return a column with the type of a field."""
    if column.type == field.type:
        return column
    _note_inexact(column, field, tally)
    return column.cast(field.type, safe=False)


def _note_inexact(column: pa.ChunkedArray, field: pa.Field, tally: Tally) -> None:
    """Count integers that no double is equal to, where another run has floats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type == pa.int64() and field.type == pa.float64():
        back = column.cast(pa.float64(), safe=False).cast(pa.int64(), safe=False)
        count = pc.sum(pc.not_equal(column, back)).as_py() or 0
        tally.note(f"integers of {field.name}, rounded: another run has floats there", count)


def _by_step(stream: str, rows: pa.Table) -> pa.Table:
    """Sort rows by rank and step, if they are not: statistics of row groups then tell them apart.

    Rows of equal steps stay in their order; those without a step come last.
    """
    import pyarrow.compute as pc

    if stream not in _STEPPED:
        return rows
    keys = [name for name in ("rank", "step") if name in rows.column_names]
    step = rows["step"].combine_chunks()
    alone = "rank" not in keys or pc.count_distinct(rows["rank"]).as_py() == 1
    if alone and not step.null_count and pc.all(pc.greater_equal(step[1:], step[:-1])).as_py():
        return rows
    return rows.take(pc.sort_indices(rows, sort_keys=[(key, "ascending") for key in keys]))
