"""Optional packages: where one is missing, an error says which extra brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["extra"]


@contextmanager
def extra(name: str, *packages: str) -> Iterator[None]:
    """Import optional packages within; of those that are missing an error says how to get them.

    Args:
        name: The extra of this package that brings them.
        *packages: Their names. An import of any other that fails is a fault of the installation.

    Raises:
        ImportError: One of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise ImportError(
            f"{missing} is not installed. Get it with: pip install 'foundry_fastlog[{name}]'"
        ) from error
