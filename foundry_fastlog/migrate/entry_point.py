"""The call that sets up logging: without it, the messages of a converted program do not show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import libcst as cst

from foundry_fastlog.migrate.module import Module
from foundry_fastlog.migrate.render import string_literal
from foundry_fastlog.migrate.template import literal_text

__all__ = [
    "NAMED_LOGGER",
    "OTHER_LOGGER",
    "SETS_UP",
    "MainBlock",
    "calls_itself",
    "main_block",
    "set_up_call",
]

#: A source with this sets up logging itself.
SETS_UP = re.compile(
    r"\b(?:setup_\w*logging|ExperimentLogging|attach_experiment|basicConfig|dictConfig)\s*\("
)

_MAKES = r"\b(?:StructuredLogger|getLogger)\s*\(\s*"
#: A logger with the module's name, and one with another name, which is its group.
NAMED_LOGGER = re.compile(_MAKES + r"__name__")
OTHER_LOGGER = re.compile(_MAKES + r"""["']([^"'\n]+)["']""")


@dataclass(frozen=True, slots=True)
class MainBlock:
    """The block below ``if __name__ == "__main__":``.

    Attributes:
        start: Its first character.
        line: The line of its first statement, from 1.
        place: Insert a statement before this character.
        margin: The white space before it.
        end: What ends it: a new line, or a semicolon in a block of one line.
    """

    start: int
    line: int
    place: int
    margin: str
    end: str


def main_block(module: Module, lines: list[str]) -> MainBlock | None:
    """Find the main block of a module.

    Args:
        module: The module.
        lines: The lines of its source.
    """
    for statement in module.tree.body:
        if isinstance(statement, cst.If) and _asks_for_main(statement.test):
            start = module.start(statement)
            node = statement.body.body[0]
            first = module.lines(node)[0]
            if not isinstance(statement.body, cst.IndentedBlock):
                return MainBlock(start, first, module.start(node), "", "; ")
            line = module.lines(statement.test)[1]
            is_head = lines[line - 1].partition("#")[0].rstrip().endswith(":")
            text = lines[first - 1]
            margin = text[: len(text) - len(text.lstrip())]
            line = line + 1 if is_head else first
            place = len("".join(lines[: line - 1]))
            return MainBlock(start, line, place, margin, module.tree.default_newline)
    return None


def _asks_for_main(test: cst.BaseExpression) -> bool:
    if not isinstance(test, cst.Comparison) or len(test.comparisons) != 1:
        return False
    sides = [test.left, test.comparisons[0].comparator]
    names = [side.value for side in sides if isinstance(side, cst.Name)]
    texts = [literal_text(side) for side in sides if not isinstance(side, cst.Name)]
    is_equal = isinstance(test.comparisons[0].operator, cst.Equal)
    return is_equal and names == ["__name__"] and texts == ["__main__"]


def calls_itself(module: Module) -> bool:
    """Return whether a module calls one of its functions when it is run: it is a program."""
    found = _Calls()
    module.tree.visit(found)
    return bool(found.called & found.defined)


class _Calls(cst.CSTVisitor):
    """Collects a module's functions, and the names that its own statements call."""

    def __init__(self) -> None:
        self.defined: set[str] = set()
        self.called: set[str] = set()
        self._in_statement = False

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        self.defined.add(node.name.value)
        return False

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:  # noqa: ARG002 - LibCST's protocol
        return False

    def visit_Lambda(self, node: cst.Lambda) -> bool:  # noqa: ARG002
        return False

    def visit_Expr(self, node: cst.Expr) -> None:  # noqa: ARG002
        self._in_statement = True

    def leave_Expr(self, original_node: cst.Expr) -> None:  # noqa: ARG002
        self._in_statement = False

    def visit_Call(self, node: cst.Call) -> None:
        if self._in_statement and isinstance(node.func, cst.Name):
            self.called.add(node.func.value)


def set_up_call(
    path: str, *, has_main: bool, runs_code: bool, is_inserted: bool, debug: bool
) -> str:
    """Return the call that makes the messages of a file show.

    Args:
        path: The file; "" if it has no name.
        has_main: The file is run: it has a main block, or is a notebook.
        runs_code: It prints, or calls its functions, as soon as it is run or imported.
        is_inserted: The call stands in the file itself.
        debug: Some of its messages are of level debug.
    """
    file = Path(path).resolve() if path else Path()
    package = _package_of(file)
    is_package_main = file.name == "__main__.py"
    is_program = has_main or is_package_main or (runs_code and package is None)
    # A file that is run has the logger "__main__", in a package as well.
    is_own = is_program or not path or (is_inserted and package is None)
    arguments = ["__name__" if is_own else string_literal(package or file.stem)]
    experiment = file.parent.name if is_package_main else file.stem
    experiment = re.sub(r"[^\w.-]+", "_", experiment).strip("_.-")
    if is_program and experiment:
        arguments.append(f"experiment={string_literal(experiment)}")
    if debug:
        arguments.append('level="DEBUG"')
    return f"setup_logging({', '.join(arguments)})"


def _package_of(file: Path) -> str | None:
    """Return the name of the outermost package that a file is in."""
    folder, name = file.parent, None
    while (folder / "__init__.py").exists():
        folder, name = folder.parent, folder.name
    return name
