"""What happens in a world: a list of actions that is a function of its seed.

An action names processes by numbers and files by their place in a listing, so that a schedule stays
sound when actions are taken out of it: one that has nobody to do it does nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MOST_PROCESSES = 12
RUNS = ("run0", "run1", "run2")
Action = dict[str, Any]

#: How often each action is drawn. Those below the line break something, at least for a while.
WEIGHTS = {
    "start": 8,
    "open": 4,
    "record": 22,
    "hum": 5,
    "quiet": 3,
    "flush": 8,
    "close": 4,
    "exit": 3,
    "fork": 8,
    "spawn": 1,
    "exec": 1,
    "read": 5,
    "recover": 5,
    "check": 2,
    "sleep": 6,
    "own_file": 1,
    # ----
    "kill": 5,
    "kill_group": 1,
    "pause": 3,
    "copy": 3,
    "move": 1,
    "remove_run": 2,
    "remove_lines": 1,
    "remove_file": 1,
    "remove_rings": 1,
    "compress": 1,
    "rename": 1,
    "truncate": 1,
    "close_descriptors": 1,
    "fill": 2,
    "free": 3,
    "limit": 2,
    "relax": 3,
    "starve": 1,
    "reboot": 1,
}
#: Actions after which records may be gone from a run's files, or in others.
DESTRUCTIVE = (
    "move",
    "remove_run",
    "remove_lines",
    "remove_file",
    "remove_rings",
    "compress",
    "rename",
    "truncate",
)


@dataclass
class Schedule:
    """A world to be; its disk is "tmpfs", which can be full, "overlay" or "plain"."""

    seed: int
    disk: str = "tmpfs"
    actions: list[Action] = field(default_factory=list)

    def dump(self) -> str:
        """As a script: a line for the world, then one per action."""
        lines = [{"seed": self.seed, "disk": self.disk}, *self.actions]
        return "".join(json.dumps(line) + "\n" for line in lines)

    @classmethod
    def load(cls, text: str) -> Schedule:
        head, *actions = (
            json.loads(line) for line in text.splitlines() if line and not line.startswith("#")
        )
        return cls(head["seed"], head["disk"], actions)


def draw_options(rng: random.Random) -> dict[str, Any]:
    """Draw a recorder's settings, small ones more often than the usual."""
    options: dict[str, Any] = {
        "ring": rng.choice(("file", "file", "file", "file", "shm", "memory")),
        "ring_bytes": rng.choice((1 << 16, 1 << 16, 1 << 18, 1 << 20, 8 << 20)),
        "segment_bytes": rng.choice((4096, 16384, 1 << 20, 1 << 28)),
        "fsync": rng.choice(("none", "none", "interval", "every_flush")),
        "flush_interval_s": rng.choice((0.001, 0.01, 0.1)),
        "back_pressure": rng.choice(("block", "block", "drop")),
        "block_timeout_s": 0.2,
        "fsync_interval_s": rng.choice((0.05, 1.0)),
    }
    if rng.random() < 0.4:
        options["rank"] = rng.randrange(4)
    return options


class _Drawing:
    """Draws actions that mostly have somebody to do them."""

    def __init__(self, rng: random.Random, weights: dict[str, int]) -> None:
        self.rng = rng
        self.weights = weights
        self.alive: dict[int, bool] = {}  # processes, and whether they have a recorder
        self.groups: dict[int, int] = {}
        self.next = 1
        self.copies = 0

    def process(self) -> int:
        self.next += 1
        return self.next

    def who(self, recording: bool = True) -> int | None:
        found = [p for p, records in self.alive.items() if records or not recording]
        return self.rng.choice(found) if found else None

    def count(self) -> int:
        return self.rng.choice((1, 5, 40, 40, 200, 1000))

    def draw(self) -> Action | None:
        names = list(self.weights)
        name = self.rng.choices(names, list(self.weights.values()))[0]
        made = getattr(self, name, self.other)(name)
        return None if made is None else {"do": name, **made}

    def start(self, name: str) -> Action | None:
        if len(self.alive) >= MOST_PROCESSES:
            return None
        child, how = self.process(), self.rng.choice(("fork",) * 6 + ("exec", "namespace"))
        self.alive[child], self.groups[child] = True, child
        return {"child": child, "how": how, **self.place()}

    def place(self) -> Action:
        return {"run": self.rng.choice(RUNS), "options": draw_options(self.rng)}

    def open(self, name: str) -> Action | None:
        idle = [p for p, records in self.alive.items() if not records]
        if not idle:
            return None
        who = self.rng.choice(idle)
        self.alive[who] = True
        run = f"copy{self.rng.randrange(self.copies)}" if self.copies else "run0"
        return {"who": who, **self.place(), **({"run": run} if self.rng.random() < 0.2 else {})}

    def fork(self, name: str) -> Action | None:
        who = self.who(recording=self.rng.random() < 0.95)
        if who is None or len(self.alive) >= MOST_PROCESSES:
            return None
        child = self.process()
        self.alive[child], self.groups[child] = self.alive[who], self.groups[who]
        way = self.rng.choice(("plain", "plain", "plain", "multiprocessing", "item"))
        threads = self.rng.choice((0, 1, 3, 3))
        return {"who": who, "child": child, "way": way, "threads": threads, "count": self.count()}

    def spawn(self, name: str) -> Action | None:
        who = self.who()
        if who is None or len(self.alive) >= MOST_PROCESSES:
            return None
        child = self.process()
        self.alive[child], self.groups[child] = True, self.groups[who]
        return {"who": who, "child": child}

    def exec(self, name: str) -> Action | None:
        who = self.who()
        if who is None:
            return None
        child = self.process()
        self.alive.pop(who)
        self.alive[child], self.groups[child] = False, self.groups[who]
        return {"who": who, "child": child}

    def kill(self, name: str) -> Action | None:
        who = self.who()
        if who is None:
            return None
        self.alive.pop(who)
        return {"who": who, "settled": self.rng.random() < 0.5}

    def exit(self, name: str) -> Action | None:
        made = self.kill(name)
        how = self.rng.choice(("exit", "exit", "_exit", "term"))
        return None if made is None else {"who": made["who"], "how": how}

    def kill_group(self, name: str) -> Action | None:
        who = self.who()
        if who is None:
            return None
        group = self.groups[who]
        self.alive = {p: r for p, r in self.alive.items() if self.groups[p] != group}
        return {"group": group}

    def close(self, name: str) -> Action | None:
        who = self.who()
        if who is None:
            return None
        self.alive[who] = False
        return {"who": who, "timeout_s": 1}

    def other(self, name: str) -> Action | None:
        rng = self.rng
        if name in ("read", "recover", "reboot", *DESTRUCTIVE):
            run = rng.choice(RUNS)
            if self.copies and name in ("read", "recover") and rng.random() < 0.4:
                run = f"copy{rng.randrange(self.copies)}"
            made: Action = {"run": run}
            if name == "read":
                made["how"] = rng.choice(("read_run", "summary", "export", "tail"))
            elif name == "recover":
                made["how"] = rng.choice(("function",) * 8 + ("command",))
                made["times"] = rng.choice((1, 1, 20, 300)) if made["how"] == "function" else 1
            elif name in ("remove_file", "compress", "rename", "truncate"):
                made["file"] = rng.randrange(100)
            if name == "rename":
                made["name"] = rng.choice(("{0}.1", "{1}.r9.jsonl", "{1}.000003.jsonl"))
            elif name == "truncate":
                made["keep"] = rng.choice((0.0, 0.0, rng.random()))
            elif name == "move":
                made["to"] = f"moved{rng.randrange(1000)}"
            return made
        if name == "copy":
            self.copies += self.copies == 0 or rng.random() < 0.4
            return {"run": rng.choice(RUNS), "to": f"copy{rng.randrange(self.copies)}"}
        if name == "sleep":
            return {"ms": rng.choice((1, 10, 10, 50, 150))}
        if name in ("check", "fill", "free"):
            return {}
        if name == "own_file":
            return {"run": rng.choice(RUNS), "size": rng.randrange(5000)}
        who = self.who()
        if who is None:
            return None
        details: dict[str, Action] = {
            "record": {
                "threads": rng.choice((1, 1, 2, 4)),
                "count": self.count(),
                "pause_us": rng.choice((0, 0, 100)),
            },
            "hum": {"threads": rng.choice((1, 3)), "pause_us": rng.choice((100, 1000))},
            "pause": {"ms": rng.choice((1, 20, 100))},
            "limit": rng.choice(({"kind": "nofile", "size": 0}, {"kind": "fsize", "size": 20_000})),
            "starve": {"count": 300, "kib": rng.choice((64, 512, 2048))},
        }
        return {"who": who, **details.get(name, {})}


def draw(seed: int, only: Iterable[str] = (), without: Iterable[str] = ()) -> Schedule:
    """Draw the schedule of a seed, with all actions or some; there is always one that starts."""
    rng = random.Random(seed)
    wanted = set(only) | {"start"} if only else set(WEIGHTS)
    weights = {name: w for name, w in WEIGHTS.items() if name in wanted - set(without)}
    # In half of the worlds few kinds of things break: what stays whole there is all of a run.
    if rng.random() < 0.5:
        broken = rng.sample(DESTRUCTIVE, rng.randrange(3))
        weights = {n: w for n, w in weights.items() if n not in DESTRUCTIVE or n in broken}
    drawing = _Drawing(rng, weights)
    actions: list[Action] = []
    length = rng.choice((20, 40, 80))
    for _ in range(10 * length):
        made = drawing.draw()
        if made is not None:
            actions.append(made)
        if len(actions) == length:
            break
    return Schedule(seed, rng.choice(("tmpfs", "tmpfs", "plain", "overlay")), actions)
