"""Optional packages: where one is missing, an error says which extra brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

__all__ = ["extra", "how_to_get", "is_installed"]


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
        raise ImportError(how_to_get(missing, name)) from error


def is_installed(package: str) -> bool:
    """Return whether a package is there, without an import of it."""
    try:
        spec = find_spec(package)
    except ValueError:  # in use, and made by hand
        return True
    return spec is not None and spec.origin is not None  # a folder of that name is no package


def how_to_get(package: str, name: str) -> str:
    """Say that a package is missing, and which extra of this package brings it."""
    return f"{package} is not installed. Get it with: pip install 'foundry_fastlog[{name}]'"
