"""What rooms above this one show of a run, behind methods of ``Run``.

Reading knows nothing of figures and drawing. A method that shows some names here which function
does it, and that is loaded when the method is first called.
"""

from __future__ import annotations

import importlib
from typing import Any

from foundry_fastlog.base.extras import extra

__all__ = ["view"]

_VIEWS = {
    "card": ("foundry_fastlog.show.card", "card"),
    "compare_ranks": ("foundry_fastlog.analysis.ranks", "compare_ranks"),
    "errors": ("foundry_fastlog.analysis.error_groups", "group_errors"),
    "goodput": ("foundry_fastlog.analysis.goodput", "measure_goodput"),
    "plot": ("foundry_fastlog.show.plot_runs", "plot_runs"),
    "summary": ("foundry_fastlog.analysis.summarize", "summarize"),
}


def view(name: str) -> Any:  # noqa: ANN401 - a function; its room types it
    """Load what shows a run.

    Raises:
        ImportError: An optional package is missing; the message says how to get it.
    """
    module, function = _VIEWS[name]
    with extra("plot", "numpy"):
        return getattr(importlib.import_module(module), function)
