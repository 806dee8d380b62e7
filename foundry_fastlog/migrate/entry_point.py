"""The call that sets up logging: without it, the messages of a converted program do not show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import libcst as cst

from foundry_fastlog.migrate.module import Module
from foundry_fastlog.migrate.render import string_literal
from foundry_fastlog.migrate.template import literal_text

__all__ = ["SETS_UP", "MainBlock", "main_block", "set_up_call"]

#: A source with this sets up logging itself.
SETS_UP = re.compile(
    r"\b(?:setup_\w*logging|ExperimentLogging|attach_experiment|basicConfig|dictConfig)\s*\("
)


@dataclass(frozen=True, slots=True)
class MainBlock:
    """The block below ``if __name__ == "__main__":``.

    Attributes:
        start: Its first character.
        line: Insert a statement before this line, from 1; 0 if the block has no lines of its own.
        margin: The white space before its statements.
    """

    start: int
    line: int = 0
    margin: str = ""


def main_block(module: Module, lines: list[str]) -> MainBlock | None:
    """Find the main block of a module.

    Args:
        module: The module.
        lines: The lines of its source.
    """
    for statement in module.tree.body:
        if isinstance(statement, cst.If) and _asks_for_main(statement.test):
            start = module.start(statement)
            if not isinstance(statement.body, cst.IndentedBlock):
                return MainBlock(start)
            first = module.lines(statement.body.body[0])[0]
            line = module.lines(statement.test)[1]
            is_head = lines[line - 1].partition("#")[0].rstrip().endswith(":")
            text = lines[first - 1]
            margin = text[: len(text) - len(text.lstrip())]
            return MainBlock(start, line + 1 if is_head else first, margin)
    return None


def _asks_for_main(test: cst.BaseExpression) -> bool:
    if not isinstance(test, cst.Comparison) or len(test.comparisons) != 1:
        return False
    sides = [test.left, test.comparisons[0].comparator]
    names = [side.value for side in sides if isinstance(side, cst.Name)]
    texts = [literal_text(side) for side in sides if not isinstance(side, cst.Name)]
    is_equal = isinstance(test.comparisons[0].operator, cst.Equal)
    return is_equal and names == ["__name__"] and texts == ["__main__"]


def set_up_call(path: str, *, is_program: bool, debug: bool) -> str:
    """Return the call that makes the messages of a file show.

    Args:
        path: The file; "" if it has no name.
        is_program: The file is run, not imported.
        debug: Some of its messages are of level debug.
    """
    file = Path(path)
    stem = re.sub(r"[^\w.-]+", "_", file.stem).strip("_.-")
    name = "__name__"
    if not is_program and path:
        package = file.resolve().parent
        top = file.stem
        while (package / "__init__.py").exists():
            top, package = package.name, package.parent
        name = string_literal(top)
    arguments = [name]
    if is_program and stem:
        arguments.append(f"experiment={string_literal(stem)}")
    if debug:
        arguments.append('level="DEBUG"')
    return f"setup_logging({', '.join(arguments)})"
