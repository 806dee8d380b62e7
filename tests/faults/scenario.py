"""A run that meets a fault; executed by the tests in a process with the shim preloaded.

    python scenario.py MODE RUN SWITCH OPTIONS

MODE `from_start`: the fault is on before the recorder opens. `midway`: it comes after 500 steps.
`heals`: it comes midway and goes before the recorder closes. Prints one JSON object with what the
recorder answered; records 3,000 steps in all, timers and events among them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from foundry_fastlog import Recorder


def main() -> None:
    mode, run, switch_name, options = sys.argv[1:5]
    switch = Path(switch_name)
    told: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    logging.getLogger("foundry_fastlog").addHandler(Keep())
    if mode == "from_start":
        switch.touch()
    recorder = Recorder(run, flush_interval_s=0.005, **json.loads(options))
    accepted = {"metrics": 0, "performance": 0, "log": 0}
    longest = 0.0
    for step in range(3000):
        if step == 500 and mode != "from_start":
            recorder.flush(5)
            switch.touch()
        began = time.perf_counter()
        with recorder.timer("step", step=step):
            accepted["metrics"] += recorder.record(step, loss=step / 7, note="text")
        if step % 100 == 0:
            accepted["log"] += recorder.event("hundred", step=step)
            time.sleep(0.01)  # lets the flush thread meet the fault while training goes on
        longest = max(longest, time.perf_counter() - began - 0.01)
        accepted["performance"] += 1
    if mode == "heals":
        recorder.flush(0.3)
        switch.unlink()
    closed = recorder.close(0.5 if mode == "midway" else 20)
    stats = recorder.stats()
    answer = {
        "closed": closed,
        "accepted": accepted,
        "stats": {key: value for key, value in stats.items() if key != "streams"},
        "told": told,
        "longest_call_s": longest,
    }
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
