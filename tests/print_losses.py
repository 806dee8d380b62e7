"""What a log call lacks of what the prints that it replaces showed, by their syntax trees."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from string import Formatter

from foundry_fastlog.migrate import FileReport

# Words that may go: those of a level, and small ones beside a value; x is a sign between two.
LEVELS = "debug dbg trace verbose info warning warn caution error err exception critical fatal"
SMALL = "x to from at in of with for on by into is was are as and or than via using per the a an"
UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    "min": "min",
    "mins": "min",
    "minutes": "min",
    "h": "h",
    "hours": "h",
    **{unit.lower(): unit.lower() for unit in ("KB", "MB", "GB", "TB", "KiB", "MiB", "GiB")},
    **{unit: unit for unit in ("ms", "us", "ns", "bytes", "hz")},
    "µs": "us",
    "c": "celsius",
    "k": "thousands",
    "m": "millions",
    "b": "billions",
    **{name: name for name in ("thousands", "millions", "billions")},
}
TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
PERCENT = re.compile(r"%(?:\(\w*\))?[#0 +-]*(?:\d+|\*)?(?:\.(?:\d*|\*))?[hlL]?[a-zA-Z%]")


def is_text(node: ast.expr) -> bool:
    is_literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_literal or isinstance(node, ast.JoinedStr)


def leaves(node: ast.expr) -> Iterator[ast.expr]:
    """List the operands of a chain of additions."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from leaves(node.left)
        yield from leaves(node.right)
    else:
        yield node


def shown(node: ast.expr) -> Iterator[str | ast.expr]:
    """List the texts and the values that an argument of print shows."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield from shown(part.value if isinstance(part, ast.FormattedValue) else part)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = list(leaves(node))
        for part in parts if any(map(is_text, parts)) else [node]:
            yield from shown(part) if part is not node else [node]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and is_text(node.left):
        yield PERCENT.sub(" ", "".join(it for it in shown(node.left) if isinstance(it, str)))
        values = [node.right]
        if isinstance(node.right, ast.Tuple):
            values = node.right.elts
        elif isinstance(node.right, ast.Dict):
            values = node.right.values
        for value in values:
            yield from [value.value] if is_text(value) else [value]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from [] if is_text(node.left) or is_text(node.right) else [node]
    elif isinstance(node, ast.Call):
        yield from shown_by_call(node)
    else:
        yield node


def shown_by_call(node: ast.Call) -> Iterator[str | ast.expr]:
    function = node.func
    if (
        isinstance(function, ast.Attribute)
        and function.attr == "format"
        and is_text(function.value)
    ):
        form = "".join(it for it in shown(function.value) if isinstance(it, str))
        yield " ".join(text for text, *_ in Formatter().parse(form))
        for value in (*node.args, *(keyword.value for keyword in node.keywords)):
            yield from [value.value] if is_text(value) else [value]
    elif isinstance(function, ast.Name) and function.id == "str" and len(node.args) == 1:
        yield from shown(node.args[0])
    else:
        yield node


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", TERMINAL.sub("", text).lower())


def losses(olds: list[str], new: str, constants: frozenset[str] = frozenset()) -> list[str]:
    """List the words and the expressions of prints that a log call says nowhere.

    Args:
        olds: The prints.
        new: The log call.
        constants: Names that stand for decoration.
    """
    call = parsed(new)
    names = [keyword.arg or "" for keyword in call.keywords]
    said = set(words(" ".join([ast.literal_eval(call.args[0]), *names])))
    values = {ast.dump(node) for keyword in call.keywords for node in ast.walk(keyword.value)}
    lost = []
    for old in olds:
        before = parsed(old)
        for argument in (*before.args, *(it.value for it in before.keywords if it.arg == "s")):
            for part in shown(argument):
                if isinstance(part, str):
                    lost += [word for word in words(part) if not is_said(word, said)]
                elif ast.dump(part) not in values and ast.unparse(part) not in constants:
                    lost.append(ast.unparse(part))
    return lost


def is_said(word: str, said: set[str]) -> bool:
    if word in said or word in LEVELS.split() or word in SMALL.split():
        return True
    unit = UNITS.get(word)
    return unit is not None and any(UNITS.get(other, other) == unit for other in said)


def parsed(code: str) -> ast.Call:
    """Parse a single call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes
        (found,) = ast.parse(code).body
    assert isinstance(found, ast.Expr)
    assert isinstance(found.value, ast.Call)
    return found.value


def losses_of(report: FileReport, constants: frozenset[str] = frozenset()) -> list[str]:
    """List what all converted prints of a report lost."""
    lost, joined = [], []
    for found in report.findings:
        if found.new:
            lost += losses([*joined, found.old], found.new, constants)
            joined = []
        elif found.new is not None and "says it" in (found.note or ""):
            joined.append(found.old)
    return lost
