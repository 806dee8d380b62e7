"""The language of all ``--where`` options: an expression over what is known of a run or a line.

    >>> where = compile_where("config.lr >= 1e-3 and last.loss < 2", roots=("config", "last"))
    >>> where({"config": {"lr": 0.1}, "last": {"loss": 1.5}}.__getitem__)
    True

It is written as Python is: comparisons and chains of them (``1 < x < 3``), ``and``, ``or``,
``not``, ``in``, ``not in``, arithmetic, numbers, texts and lists; ``true``, ``false`` and ``null``
as JSON has them. Names are dotted; parts with odd characters stand in backquotes or brackets:
``last.`val/loss` ``, ``last["val/loss"]``.

A name that is absent makes each comparison false, and so does what cannot be compared. Arithmetic
with it is absent, too. Only the functions of ``FUNCTIONS`` can be called, nothing is executed, and
neither time nor memory can grow beyond what the expression's length permits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from foundry_fastlog.analysis.where_compiler import (
    Compiler,
    Eval,
    WhereError,
    describe_name,
    dotted,
)
from foundry_fastlog.analysis.where_values import (
    ABSENT,
    FUNCTIONS,
    Lookup,
    NamePath,
    find_in,
    look,
)

__all__ = ["ABSENT", "FUNCTIONS", "Lookup", "Where", "WhereError", "compile_where", "find_in"]


class Where:
    """A compiled expression.

    Args:
        text: The expression.
        evaluate: What it was compiled to.
        names: Where each of its names stands: path, first and last character.

    Attributes:
        text: The expression.
    """

    def __init__(
        self, text: str, evaluate: Eval, names: Mapping[NamePath, tuple[int, int]]
    ) -> None:
        self.text = text
        self._evaluate = evaluate
        self._names = names
        self._missing = set(names)

    def __call__(self, lookup: Lookup) -> bool:
        """Say whether it is true of something."""
        return bool(self.value(lookup))

    def value(self, lookup: Lookup) -> Any:  # noqa: ANN401 - any JSON
        """Return its value; ``ABSENT`` where that depends on a name that is absent."""
        if self._missing:
            for path in tuple(self._missing):
                if look(path, lookup) is not ABSENT:
                    self._missing.discard(path)
        return self._evaluate(lookup)

    @property
    def roots(self) -> set[str]:
        """The first parts of its names."""
        return {str(path[0]) for path in self._names}

    def paths(self, root: str) -> set[str]:
        """The names below a first part, dotted: ``loss`` of ``last.loss``; "" for itself."""
        return {".".join(map(str, path[1:])) for path in self._names if path[0] == root}

    def missing(self, known: Callable[[], Iterable[str]]) -> list[tuple[NamePath, str]]:
        """Return the names that were absent each time, each with its place and the nearest known.

        Args:
            known: Returns the dotted names that some of what was looked at has; it is asked only
                where a name was absent.
        """
        missing = sorted(self._missing, key=lambda path: self._names[path])
        names = list(dict.fromkeys(known())) if missing else []
        return [
            (
                path,
                describe_name(
                    self.text, self._names[path], f"nothing here has {dotted(path)}", path, names
                ),
            )
            for path in missing
        ]


def compile_where(
    text: str,
    roots: Collection[str] | None = None,
    *,
    known: Callable[[], Iterable[str]] = tuple,
) -> Where:
    """Compile an expression.

    Args:
        text: The expression; see this module.
        roots: With what names may begin; None for anything.
        known: Returns more names to propose where one is unknown.

    Raises:
        WhereError: It cannot be understood. The message shows where, and what is known.
    """
    compiler = Compiler(text, roots, known)
    evaluate = compiler.compile()
    return Where(text, evaluate, compiler.names)
