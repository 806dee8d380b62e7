"""This process's place in its job: rank, world size, and which launch it belongs to.

A launch is one start of the program, on however many machines. What a launcher puts into the
environment names it; where nothing does, ranks that one parent started belong together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from foundry_fastlog.base.arguments import process_number
from foundry_fastlog.base.environment import boot_id, process_start

__all__ = [
    "Launch",
    "Place",
    "find_launch",
    "find_local_rank",
    "find_local_size",
    "find_place",
    "is_restart",
]

_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
_LOCAL_SIZES = (
    *("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"),
    "SLURM_NTASKS_PER_NODE",
)


class Place(NamedTuple):
    """A process's place among the ranks of its job; None where nothing says so.

    Attributes:
        rank: Its rank.
        world_size: How many ranks there are.
    """

    rank: int | None
    world_size: int | None


class Launch(NamedTuple):
    """One start of the program.

    Attributes:
        by: Who says so: ``argument``, ``torchelastic``, ``slurm``, ``mpi``, ``env`` (MASTER_ADDR
            and MASTER_PORT) or ``parent`` (the process that started the ranks).
        id: Its name, which no other launch has at the same time.
    """

    by: str
    id: str


def is_restart(launch: object, earlier: object) -> bool:
    """Say whether a launcher says that it started the job of an earlier launch again.

    Args:
        launch: A launch, as the entry of its start has it.
        earlier: The other one, likewise.
    """
    by, job, count = _job(launch)
    return (by, job) == _job(earlier)[:2] and count > _job(earlier)[2] >= 0


def _job(launch: object) -> tuple[str, str, int]:
    """Return who names a launch, the job, and which start of it this is; -1 where nobody says."""
    facts = launch if isinstance(launch, dict) else {}
    by, name = str(facts.get("by")), str(facts.get("id"))
    text = name.rpartition(" ")[0] if by == "torchelastic" else name
    job, _, count = text.rpartition(".")
    counts = by in ("torchelastic", "slurm") and count.isascii() and count.isdecimal()
    return by, job, int(count) if counts else -1


def find_place(rank: int | None = None, world_size: int | None = None) -> Place:
    """Find out rank and world size.

    In this order: the arguments; RANK and WORLD_SIZE, as torchrun sets them; ``torch.distributed``
    where it is initialised; SLURM_PROCID of SLURM_NTASKS, where there are several tasks;
    OMPI_COMM_WORLD_RANK and _SIZE; PMI_RANK and PMI_SIZE; ``jax``, where its distributed runtime is
    initialised. Neither torch nor jax is imported for it.

    Args:
        rank: The rank, if the caller knows it.
        world_size: The number of ranks, if the caller knows it.

    Raises:
        TypeError: An argument that is no int.
        ValueError: An argument, RANK or WORLD_SIZE out of range, or a rank beyond the world's size.
    """
    given = rank is not None
    rank = process_number("rank", rank, "RANK", least=0)
    world_size = process_number("world_size", world_size, "WORLD_SIZE", least=1)
    if rank is None or world_size is None:
        for source in (_torch, _slurm, _open_mpi, _pmi, _jax):
            place = source()
            if place is None:
                continue
            # Two launchers' numbers do not mix: without its rank their world is none of ours.
            if rank is None:
                rank = place.rank
                world_size = place.world_size if world_size is None else world_size
            elif not given or place.rank == rank:
                world_size = place.world_size
            break
    if rank is not None and world_size is not None and rank >= world_size:
        raise ValueError(f"rank must be below world_size, got {rank} of {world_size}")
    return Place(rank, world_size)


def find_local_size() -> int | None:
    """Return how many ranks the launcher put on this host; None where it does not say so.

    From LOCAL_WORLD_SIZE, as torchrun sets it, OMPI_COMM_WORLD_LOCAL_SIZE, MPI_LOCALNRANKS or
    SLURM_NTASKS_PER_NODE.
    """
    return next(filter(None, _counts(_LOCAL_SIZES)), None)


def find_local_rank() -> int | None:
    """Return which of the ranks of this host this process is; None where nothing says so.

    From LOCAL_RANK, OMPI_COMM_WORLD_LOCAL_RANK, MPI_LOCALRANKID or SLURM_LOCALID.
    """
    return next(_counts(_LOCAL_RANKS), None)


def _counts(names: tuple[str, ...]) -> Iterator[int]:
    """Yield the numbers that variables of the environment have."""
    for name in names:
        text = os.environ.get(name, "").strip()
        if text.isascii() and text.isdecimal() and len(text) < 10:
            yield int(text)


def _numbers(rank: str, size: str) -> Place | None:
    texts = [os.environ.get(name, "").strip() for name in (rank, size)]
    if not all(text.isascii() and text.isdecimal() and len(text) < 10 for text in texts):
        return None
    place = Place(int(texts[0]), int(texts[1]))
    return place if place.rank < place.world_size else None  # type: ignore[operator]  # both are ints


def _torch() -> Place | None:
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return _asked(
        lambda: (
            distributed is not None and distributed.is_available() and distributed.is_initialized()
        ),
        lambda: Place(distributed.get_rank(), distributed.get_world_size()),  # type: ignore[union-attr]
    )


def _slurm() -> Place | None:
    place = _numbers("SLURM_PROCID", "SLURM_NTASKS")
    return None if place is None or place.world_size == 1 else place


def _open_mpi() -> Place | None:
    return _numbers("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")


def _pmi() -> Place | None:
    return _numbers("PMI_RANK", "PMI_SIZE")


def _jax() -> Place | None:
    jax: Any = sys.modules.get("jax")
    return _asked(
        lambda: jax is not None and jax.distributed.is_initialized(),
        lambda: Place(jax.process_index(), jax.process_count()),
    )


def _asked(initialised: Callable[[], bool], place: Callable[[], Place]) -> Place | None:
    try:
        return place() if initialised() else None
    except Exception:  # noqa: BLE001 - a framework that is half imported, or of another version
        return None


def find_launch(given: str | None, place: Place) -> Launch | None:
    """Find out which launch this process belongs to; None where nothing names it.

    Args:
        given: Its name, if the caller knows it.
        place: This process's place.
    """
    env = os.environ
    master = _master(env)
    if given is not None:
        return Launch("argument", given)
    if (run := env.get("TORCHELASTIC_RUN_ID")) is not None:
        return Launch(
            "torchelastic", f"{run}.{env.get('TORCHELASTIC_RESTART_COUNT', '0')} {master}"
        )
    if job := env.get("SLURM_JOB_ID"):
        step = env.get("SLURM_STEP_ID", "batch")
        return Launch("slurm", f"{job}.{step}.{env.get('SLURM_RESTART_COUNT', '0')}")
    for name in ("PMIX_NAMESPACE", "PMI_JOBID", "OMPI_MCA_ess_base_jobid"):
        if job := env.get(name):
            return Launch("mpi", job)
    if master:
        return Launch("env", f"{master} {place.world_size}")
    if place.rank is None:
        return None
    parent = os.getppid()
    started = process_start(parent)
    return None if started is None else Launch("parent", f"{boot_id()} {parent} {started}")


def _master(env: Mapping[str, str]) -> str:
    address, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    if not address or not port:
        return ""
    if address in ("localhost", "127.0.0.1", "::1"):  # of which there is one on each host
        address = os.uname().nodename
    return f"{address}:{port}"
