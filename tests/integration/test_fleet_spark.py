"""What Spark reads of a fleet's dataset: all rows, by predicates, with names as of numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleets import make_run

from foundry_fastlog import Fleet

sql = pytest.importorskip("pyspark.sql")
if shutil.which("java") is None:
    pytest.skip("Spark needs java", allow_module_level=True)

# As docs/fleet.md says it.
KEEP_NAMES = "spark.sql.sources.partitionColumnTypeInference.enabled"


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Spark on one core of this machine."""
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config(KEEP_NAMES, "false").getOrCreate()
    yield session
    session.stop()


@pytest.mark.usefixtures("cache_home")
def test_spark_reads_the_dataset_by_predicates(spark: Any, client: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "tree" / "007", loss=[3.0, float("nan"), 1.0], n=[1, 2, 3])
    make_run(tmp_path / "tree" / "b", loss=[2.0, 0.5], n=[0.5, 1.5], acc=[0.25, 0.5])
    with Fleet(tmp_path / "tree", client) as fleet:
        assert fleet.compact(tmp_path / "out").written == 2
    table = spark.read.option("mergeSchema", "true").parquet(str(tmp_path / "out" / "metrics"))
    assert {*dict(table.dtypes).items()} >= {
        ("run", "string"),
        ("step", "bigint"),
        ("loss", "double"),
        ("n", "double"),
        ("acc", "double"),
    }
    rows = table.select("run", "step", "n", "acc").orderBy("run", "step").collect()
    assert [tuple(row) for row in rows] == [
        ("007", 0, 1.0, None),
        ("007", 1, 2.0, None),
        ("007", 2, 3.0, None),
        ("b", 0, 0.5, 0.25),
        ("b", 1, 1.5, 0.5),
    ]
    chosen = table.filter("run = '007' and step >= 1").select("loss")
    assert [row.loss for row in chosen.collect()][-1] == 1.0
    plan = chosen._jdf.queryExecution().toString()
    assert "PartitionFilters: [isnotnull(run" in plan
    assert "GreaterThanOrEqual(step,1)" in plan
