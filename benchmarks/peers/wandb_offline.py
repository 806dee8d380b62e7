"""wandb in offline mode: `run.log({...}, step=...)` to its service process, which writes a file."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import Loop, Peer, VerificationError, check_steps
from benchmarks.workload import KEYS, Row

BLOCK = 32768
FILE_HEADER = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def log_records(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of a `.wandb` file (LevelDB's log format behind a seven-byte header).

    wandb ships no Python reader of its own file any more; the format is: blocks of 32 KiB, in them
    chunks of crc (4 bytes), length (2), type (1), payload; a block's last few bytes are padding.

    Raises:
        VerificationError: The file is torn or not of this format.
    """
    if data[:4] != b":W&B":
        raise VerificationError("no .wandb file")
    at, parts = FILE_HEADER, b""
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        if at + 7 > len(data):
            raise VerificationError(f"torn chunk at byte {at}")
        _, length, kind = struct.unpack_from("<IHB", data, at)
        at += 7
        payload = data[at : at + length]
        if len(payload) != length or kind not in (FULL, FIRST, MIDDLE, LAST):
            raise VerificationError(f"torn or unknown chunk at byte {at - 7}")
        at += length
        parts = payload if kind in (FULL, FIRST) else parts + payload
        if kind in (FULL, LAST):
            yield parts


def finished(path: Path, timeout_s: float = 30.0) -> bytes:
    """Return a finished run's file; wandb's service may write its end after finish() returned.

    Args:
        path: The `.wandb` file.
        timeout_s: After so long it is returned as it is.
    """
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + timeout_s
    while True:
        data = path.read_bytes()
        try:
            kinds = {
                wandb_internal_pb2.Record.FromString(payload).WhichOneof("record_type")
                for payload in log_records(data)
            }
        except VerificationError:  # it is writing this very record
            kinds = set()
        if "exit" in kinds or time.monotonic() > deadline:
            return data
        time.sleep(0.01)


def history(data: bytes) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield step and all values of each history record of a `.wandb` file."""
    from wandb.proto import wandb_internal_pb2

    for payload in log_records(data):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        if record.WhichOneof("record_type") != "history":
            continue
        items = {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        yield items.get("_step", record.history.step.num), items


class WandbOffline(Peer):
    """An offline run without system statistics, console capture or git look-up."""

    name = "wandb_offline"
    title = "wandb, offline"
    packages = ("wandb",)
    in_process = False  # starts a service process and patches the interpreter's exit

    def setup(self, directory: Path) -> Loop:
        """Start the run and its service."""
        os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DISABLE_GIT="true")
        import wandb

        settings = wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off")
        self.run = wandb.init(
            project="bench", dir=str(directory), mode="offline", settings=settings
        )
        log = self.run.log

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                log(
                    {
                        "loss": loss,
                        "lr": lr,
                        "grad_norm": grad_norm,
                        "tokens_per_sec": tokens_per_sec,
                    },
                    step=step,
                )

        return loop

    def finish(self) -> None:
        """Finish the run; the service has then written its file."""
        self.run.finish()

    def verify(self, directory: Path, count: int) -> None:
        """Decode the run file and check every history record."""
        (path,) = directory.glob("wandb/offline-run-*/*.wandb")
        found = history(finished(path))
        check_steps(((step, {key: row[key] for key in KEYS}) for step, row in found), count)


PEER = WandbOffline
