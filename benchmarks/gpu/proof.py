"""Whether a profiler trace proves that nothing waited: pure functions on its figures."""

from __future__ import annotations

PINNED = "Pinned"
"""Part of the profiler's name for a copy between the device and page-locked memory."""


def blind(seen: dict[str, bool], item_waits: float | None, wanted: float) -> str:
    """Return why a trace proves nothing, or "" if it is valid.

    Args:
        seen: The controls that the trace shows.
        item_waits: Waits in the trace of the `.item()` lane; None if there was no such lane.
        wanted: Waits that it must show, one per value.
    """
    if not seen:
        return "the trace had no controls"
    if unseen := [name for name, shown in seen.items() if not shown]:
        return f"the trace does not show {' and '.join(unseen)}"
    if item_waits is None:
        return "no .item() lane was traced with it"
    if item_waits < wanted:
        return f"the trace shows {item_waits:g} waits of .item(), not {wanted:g}"
    return ""


def wrong_copies(copies: dict[str, int], expected: int) -> str:
    """Return what is wrong with the copies to the host, or "" if count and memory are right."""
    count = sum(copies.values())
    pageable = sum(number for name, number in copies.items() if PINNED not in name)
    if pageable:
        return f"{pageable} of {count} copies go to memory that is not pinned"
    return "" if count == expected else f"{count} copies to the host, not {expected}"
