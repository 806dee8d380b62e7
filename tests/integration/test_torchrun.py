"""A run whose ranks torchrun starts, and starts again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import PACKAGE_ROOT

from foundry_fastlog import read_run

# Each process would name its files after its own rank and start. Rank 1 dies at the first start.
RANK = """
import os, signal, sys, time
from pathlib import Path
from foundry_fastlog import ExperimentLogging
from foundry_fastlog.components import experiment
from foundry_fastlog.run import start_stamp
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
experiment.timestamp = lambda: f"2025-09-30_1{rank}-0{restart}-00"
start_stamp.WAIT_S = 60
logs = ExperimentLogging("exp0", log_dir=sys.argv[1])
logs.log_step(restart, 0, {"rank": rank})
if restart == 0 and rank == 1:
    logs.recorder.flush()
    os._exit(1)
if restart == 0:
    signal.pause()  # until torchrun ends it, as it does with all ranks when one has failed
Path(sys.argv[0]).with_name(f"open-{rank}").touch()
while len(list(Path(sys.argv[0]).parent.glob("open-*"))) < 3:
    time.sleep(0.01)  # as those of a training do: the time is rank 0's while it runs
logs.close()
"""


@pytest.mark.slow
def test_ranks_that_torchrun_starts_again_have_the_new_time(tmp_path: Path) -> None:
    """Address, port and id are those of the first start; the time is that of the second."""
    pytest.importorskip("torch")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = "-m torch.distributed.run --standalone --nproc-per-node 3 --max-restarts 1"
    done = subprocess.run(
        [sys.executable, *command.split(), str(script), str(tmp_path / "logs")],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "logs" / "exp0")
    first, second = "2025-09-30_10-00-00", "2025-09-30_10-01-00"
    writers = {(one.rank, one.stamp) for one in run.writers}
    assert {stamp for _, stamp in writers} == {first, second}
    assert {rank for rank, stamp in writers if stamp == second} == {0, 1, 2}
    assert (1, first) in writers
    assert run.problems == []
