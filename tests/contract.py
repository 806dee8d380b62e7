"""The contract of the lines, for tests: the schemas, and the order of the fields."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

from foundry_fastlog.run.files import STREAMS

ORDER = {
    "metrics": ["timestamp", "seq", "step", "epoch", "metrics", "summary", "nonfinite", "missing"],
    "performance": [
        *("timestamp", "seq", "name", "duration_s", "step", "depth", "parent", "thread", "error"),
        *("device", "device_duration_s", "missing"),
    ],
    "errors": [
        *("timestamp", "seq", "level", "logger", "step", "message", "error_type"),
        *("error_message", "traceback", "fingerprint", "context", "nonfinite"),
    ],
    "event": ["timestamp", "seq", "level", "logger", "message", "event", "step", "context"],
    "system": ["timestamp", "seq", "step", "system", "nonfinite"],
    "log": ["timestamp", "seq", "level", "logger", "step", "message", "context", "nonfinite"],
}


def schema(name: str) -> dict[str, Any]:
    """A schema as it ships with the package."""
    text = (files("foundry_fastlog") / "run" / "schema" / f"{name}.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


VALIDATORS = {
    name: Draft202012Validator(schema(name)) for name in (*STREAMS, "run", "start", "end", "host")
}


def in_order(stream: str, line: dict[str, Any]) -> list[str]:
    """The fields of a line in the order that docs/format.md gives them."""
    marker = next((name for name in ("dropped", "rewind") if name in line), None)
    if marker is not None:
        known = ["timestamp", "seq", marker, "epoch"]
    else:
        known = ORDER["event" if "event" in line else stream]
    return [name for name in known if name in line]
