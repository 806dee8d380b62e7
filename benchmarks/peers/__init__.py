"""The peers, in the order of the table. One module each; a module is imported only to run it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.base import Peer

PEERS = (
    "empty_fastcall",
    "empty_method",
    "fastlog",
    "fastlog_bound",
    "fastlog_tensors",
    "fastlog_item",
    "orjson_write",
    "trackio_local",
    "picologging_json",
    "structlog_orjson",
    "fastlog_metrics_logger",
    "plan_metrics_logger",
    "stdlib_queue",
    "loguru_enqueue",
    "wandb_offline",
    "tensorboard_scalars",
)

MESSAGES = (
    "message_fastlog",
    "message_fastlog_text",
    "message_fastlog_all",
    "message_picologging",
    "message_structlog",
    "message_stdlib",
    "message_loguru",
)
"""Peers of the message path: a message with five fields and the experiment's context."""

BLOCKS = ("fastlog_timer", "fastlog_time_block", "fastlog_demo_step")
"""Peers that time blocks of code."""


def load(name: str) -> Peer:
    """Return a new peer.

    Args:
        name: One of `PEERS`, `MESSAGES` or `BLOCKS`.

    Raises:
        KeyError: There is no such peer.
        ImportError: A dependency of the peer is not installed.
    """
    known = PEERS + MESSAGES + BLOCKS
    if name not in known:
        raise KeyError(f"no peer {name!r}; known peers: {', '.join(known)}")
    peer: Peer = import_module(f"benchmarks.peers.{name}").PEER()
    return peer
