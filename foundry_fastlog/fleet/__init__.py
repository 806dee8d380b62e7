"""Thousands of runs at once, read by the workers of a Dask cluster.

    from foundry_fastlog.fleet import Fleet

    with Fleet("runs") as fleet:
        print(fleet.totals(), fleet.best("loss")[0].path)
        print(fleet.goodput()[0].goodput, fleet.hosts().sentences)

Needs the extra ``fleet`` (Dask and its scheduler), once there is something to read.
"""

from __future__ import annotations

from foundry_fastlog.fleet.compaction import Compacted
from foundry_fastlog.fleet.crew import FleetError
from foundry_fastlog.fleet.failures import Failure
from foundry_fastlog.fleet.fleet import Fleet
from foundry_fastlog.fleet.goodput import FleetGoodput, RunGoodput
from foundry_fastlog.fleet.hosts import FleetHosts, Host
from foundry_fastlog.fleet.totals import Totals

__all__ = [
    "Compacted",
    "Failure",
    "Fleet",
    "FleetError",
    "FleetGoodput",
    "FleetHosts",
    "Host",
    "RunGoodput",
    "Totals",
]
