"""Finds the calls that show a line: print, and tqdm's write."""

from __future__ import annotations

import re

import libcst as cst
from libcst import metadata as meta

from foundry_fastlog.migrate.module import Module, node_of
from foundry_fastlog.migrate.template import literal_text

__all__ = ["MENTIONS", "Inside", "PrintFinder", "is_bar_write", "says_words"]

#: A source without this has nothing to migrate.
MENTIONS = re.compile(r"\bprint\b|\btqdm\b")
_WRITE = re.compile(r"tqdm(?:\.\w+)*\.write")
_BAR = re.compile(r"tqdm(?:\.\w+)*")
# What a format has in the place of a value.
_FIELDS = re.compile(r"%(?:\(\w*\))?[#0 +-]*[\d.*]*[hlL]?[a-zA-Z%]|\{[^{}]*\}")


class PrintFinder(cst.CSTVisitor):
    """Collects every use of the name print, and every call of a method write."""

    def __init__(self) -> None:
        self.names: list[cst.Name] = []
        self.writes: list[cst.Call] = []

    def visit_Name(self, node: cst.Name) -> None:
        """Collect a use of print."""
        if node.value == "print":
            self.names.append(node)

    def visit_Call(self, node: cst.Call) -> None:
        """Collect a call of a method write."""
        if isinstance(node.func, cst.Attribute) and node.func.attr.value == "write":
            self.writes.append(node)


def is_bar_write(module: Module, call: cst.Call) -> bool:
    """Return whether a call of a method write is tqdm's, which shows a line above the bars."""
    if _all_match(_WRITE, module.qualified(call.func)):
        return True
    function = cst.ensure_type(call.func, cst.Attribute)
    if not isinstance(function.value, cst.Name):
        return False
    bindings = module.bindings(function.value.value, call)
    return bool(bindings) and all(_is_bar(module, binding) for binding in bindings or ())


def _all_match(pattern: re.Pattern[str], names: set[str]) -> bool:
    return bool(names) and all(pattern.fullmatch(name) for name in names)


def _is_bar(module: Module, binding: meta.BaseAssignment) -> bool:
    """Return whether a name is bound to a progress bar: ``bar = tqdm(...)`` or ``with``."""
    node = node_of(binding)
    target = module.parents.get(node) if node is not None else None
    outer = module.parents.get(target) if target is not None else None
    value: cst.CSTNode | None = None
    if isinstance(outer, cst.Assign):
        value = outer.value
    elif isinstance(outer, cst.WithItem):
        value = outer.item
    return isinstance(value, cst.Call) and _all_match(_BAR, module.qualified(value.func))


def says_words(call: cst.Call) -> bool:
    """Return whether a print that is not understood has words beside its values."""
    for argument in call.args:
        node: cst.CSTNode = argument.value
        if argument.keyword is not None or argument.star:
            continue
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            node = node.func.value  # "...".format()
        elif isinstance(node, cst.BinaryOperation):
            node = node.left  # "..." % ()
        if re.search(r"[^\W\d_]", _FIELDS.sub("", literal_text(node) or "")):
            return True
    return False


class Inside(cst.CSTVisitor):
    """Looks for what a call contains and a log call in its place would lose or move."""

    def __init__(self) -> None:
        self.comments = self.yields = False

    def visit_Comment(self, node: cst.Comment) -> None:  # noqa: ARG002 - LibCST's protocol
        """Note a comment."""
        self.comments = True

    def visit_Yield(self, node: cst.Yield) -> None:  # noqa: ARG002 - LibCST's protocol
        """Note a yield."""
        self.yields = True
