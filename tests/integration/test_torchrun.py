"""A run whose ranks torchrun starts, and starts again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import PACKAGE_ROOT

from foundry_fastlog import read_run

# Each process would give its start a time of its own. Rank 1 dies at the first start.
RANK = """
import os, signal, sys, time
from pathlib import Path
from foundry_fastlog import ExperimentLogging
from foundry_fastlog.components import experiment
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
experiment.timestamp = lambda: f"2025-09-30_1{rank}-0{restart}-00"
logs = ExperimentLogging("exp0", log_dir=sys.argv[1])
logs.log_step(restart, 0, {f"rank{rank}": restart})
if restart == 0 and rank == 1:
    logs.recorder.flush()
    os._exit(1)
if restart == 0:
    signal.pause()  # until torchrun ends it, as it does with all ranks when one has failed
Path(sys.argv[0]).with_name(f"open-{rank}").touch()
while len(list(Path(sys.argv[0]).parent.glob("open-*"))) < 3:
    time.sleep(0.01)  # as those of a training do
logs.close()
"""


@pytest.mark.slow
def test_ranks_of_torchrun_are_one_start_and_those_it_starts_again_the_next(tmp_path: Path) -> None:
    """Address, port and id are those of the first start; number and time are the second's."""
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
    starts: dict[int, dict[str, set[int]]] = {0: {}, 1: {}}
    for one in run.writers:
        starts[one.attempt].setdefault(one.stamp, set()).add(one.rank)
        assert one.peer == 0
    ((first, began),) = starts[0].items()  # a slow rank may be ended before it records
    ((second, again),) = starts[1].items()
    assert 1 in began
    assert again == {0, 1, 2}
    assert (first[-5:], second[-5:]) == ("00-00", "01-00")
    before, after = run.report_starts()
    assert before.state in ("signal", "killed")  # SIGTERM; or before rank 0 had begun
    assert after.state == "closed"
    assert after.entry["launch"]["by"] == "torchelastic"
    assert run.problems == []
