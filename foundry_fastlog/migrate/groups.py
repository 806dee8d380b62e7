"""Prints that belong together: those that share a line, and the lines of a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import libcst as cst

from foundry_fastlog.migrate.module import Module
from foundry_fastlog.migrate.template import Template, Value, leaves_line_open
from foundry_fastlog.migrate.wording import GAP

__all__ = ["Line", "Look", "look_of", "shared_lines", "stands_alone", "table_lines"]

# The space after a label, "loss:  0.5", is none.
_SEPARATOR = re.compile(r"(?<=[^\s|:=])(?: {2,}|\s*\t\s*| *\| *)(?=[^\s|])")
_SMALL_LOOP = 4
"""A loop of more statements does more than show the rows of a table."""
_Open = frozenset[cst.Call]


# ---- prints that share a line --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """Prints of which one may continue the line of another.

    Attributes:
        calls: The prints, in source order.
        is_plain: They stand in one block, and only the last one ends the line.
        is_adjacent: Nothing stands between them.
    """

    calls: list[cst.Call]
    is_plain: bool
    is_adjacent: bool


def shared_lines(module: Module, calls: Sequence[cst.Call]) -> list[Line]:
    """Find the prints that share their line with another print, or may.

    Args:
        module: The module.
        calls: Its prints, in source order.
    """
    if not any(map(leaves_line_open, calls)):
        return []
    linker = _Linker(calls)
    linker.block(module.tree.body, frozenset())
    return [_line(module, group) for group in linker.groups()]


def stands_alone(statement: cst.CSTNode) -> bool:
    """Return whether a statement can be removed with its line, and nothing else with it."""
    return (
        isinstance(statement, cst.SimpleStatementLine)
        and len(statement.body) == 1
        and statement.trailing_whitespace.comment is None
    )


def _line(module: Module, group: list[cst.Call]) -> Line:
    statements = [module.parents[module.parents[call]] for call in group]
    blocks = {module.parents[statement] for statement in statements}
    alone = all(map(stands_alone, statements[:-1]))
    is_open = [leaves_line_open(call) for call in group]
    is_plain = alone and len(blocks) == 1 and is_open.count(False) == 1 and not is_open[-1]
    is_adjacent = False
    if is_plain:
        body = list(blocks.pop().children)
        first = body.index(statements[0])
        is_adjacent = body[first : first + len(group)] == statements
    return Line(group, is_plain, is_adjacent)


class _Linker:
    """Follows the flow of control, and links each print to those that left its line open."""

    def __init__(self, calls: Sequence[cst.Call]) -> None:
        self._group = {call: [call] for call in calls}
        self._passed: _Open = frozenset()  # in the innermost try: at any place, so when it fails
        self._jumped: _Open = frozenset()  # in the innermost loop: before break and continue

    def groups(self) -> Iterator[list[cst.Call]]:
        """List the groups of linked prints; a print that ends its own line is in none."""
        order = {call: place for place, call in enumerate(self._group)}
        seen: set[int] = set()
        for call, group in self._group.items():
            if id(group) not in seen and (len(group) > 1 or leaves_line_open(call)):
                seen.add(id(group))
                yield sorted(group, key=order.__getitem__)

    def block(self, body: Sequence[cst.CSTNode], before: _Open) -> _Open:
        """Return which prints may have left the line open after a block.

        Args:
            body: Its statements.
            before: Those that may have left it open before.
        """
        for statement in body:
            before = self._statement(statement, before)
        return before

    def _statement(self, node: cst.CSTNode, before: _Open) -> _Open:
        if isinstance(node, cst.SimpleStatementLine):
            return self.block(node.body, before)
        if isinstance(node, cst.Expr):
            return self._call(node.value, before)
        if isinstance(node, cst.Break | cst.Continue):
            self._jumped |= before
        if isinstance(node, cst.Break | cst.Continue | cst.Return | cst.Raise):
            return frozenset()  # nothing comes after it
        if isinstance(node, cst.BaseSmallStatement):
            return before
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            passed = self._passed
            self.block(node.body.body, frozenset())
            self._passed = passed
            return before
        if isinstance(node, cst.If):
            skipped = before if node.orelse is None else self._statement(node.orelse, before)
            return self.block(node.body.body, before) | skipped
        if isinstance(node, cst.With | cst.Else):
            return self.block(node.body.body, before)
        if isinstance(node, cst.Try | cst.TryStar):
            return self._try(node, before)
        if isinstance(node, cst.For | cst.While):
            return self._loop(node, before)
        after = before
        for suite in _suites(node):
            after |= self.block(suite.body, after)
        return after

    def _loop(self, node: cst.For | cst.While, before: _Open) -> _Open:
        jumped, self._jumped = self._jumped, frozenset()
        after = before
        for _ in range(2):
            for suite in _suites(node):
                after |= self.block(suite.body, after) | self._jumped
        self._jumped = jumped
        return after

    def _try(self, node: cst.Try | cst.TryStar, before: _Open) -> _Open:
        passed, self._passed = self._passed, before
        after = self.block(node.body.body, before)
        failed, handled = self._passed, frozenset[cst.Call]()
        for handler in node.handlers:
            handled |= self.block(handler.body.body, failed)
        if node.orelse is not None:
            after = self.block(node.orelse.body.body, after)
        after |= handled
        if node.finalbody is not None:
            self.block(node.finalbody.body.body, self._passed)
            after = self.block(node.finalbody.body.body, after)
        self._passed |= passed
        return after

    def _call(self, node: cst.CSTNode, before: _Open) -> _Open:
        if not isinstance(node, cst.Call) or node not in self._group:
            return before
        for other in before:
            mine, others = self._group[node], self._group[other]
            if mine is not others:
                mine += others
                self._group.update(dict.fromkeys(others, mine))
        after = frozenset([node]) if leaves_line_open(node) else frozenset()
        self._passed |= after
        return after


def _suites(node: cst.CSTNode) -> Iterator[cst.BaseSuite]:
    """List the blocks of a compound statement, in source order."""
    for child in node.children:
        if isinstance(child, cst.BaseSuite):
            yield child
        elif not isinstance(child, cst.BaseExpression):
            yield from _suites(child)


# ---- tables --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """How the line of a print looks.

    Attributes:
        stays: The print stays because it shows only values.
        is_empty: It shows an empty line or decoration.
        is_text: It shows no value.
        is_heading: It shows only a text that ends with a colon.
        has_columns: It shows several columns.
        is_padded: It shows several values in columns of fixed width.
        stream: What it is written to, as in the source; "" for stdout.
    """

    stays: bool = False
    is_empty: bool = False
    is_text: bool = False
    is_heading: bool = False
    has_columns: bool = False
    is_padded: bool = False
    stream: str = ""


def look_of(template: Template, stream: str, *, stays: bool, is_empty: bool) -> Look:
    """Return how what a print shows looks."""
    text = "".join(GAP if isinstance(part, Value) else part for part in template.parts)
    is_padded = sum(isinstance(part, Value) and part.padded for part in template.parts) > 1
    return Look(
        stays=stays,
        is_empty=is_empty,
        is_text=GAP not in text,
        is_heading=GAP not in text and text.rstrip().endswith(":"),
        has_columns=is_padded or _SEPARATOR.search(text.strip()) is not None,
        is_padded=is_padded,
        stream=stream,
    )


def table_lines(module: Module, looks: Mapping[cst.Call, Look]) -> dict[cst.Call, int]:
    """Find the prints that belong to rows that stay: titles, headings, totals.

    Args:
        module: The module.
        looks: How the line of each print looks.

    Returns:
        Each such print, with the line of a row that stays.
    """
    finder = _Tables(module, looks)
    module.tree.visit(finder)
    return finder.found


class _Tables(cst.CSTVisitor):
    def __init__(self, module: Module, looks: Mapping[cst.Call, Look]) -> None:
        self._module = module
        self._looks = looks
        self.found: dict[cst.Call, int] = {}

    def visit_Module(self, node: cst.Module) -> None:
        self._block(node.body)

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        self._block(node.body)

    def _block(self, body: Sequence[cst.CSTNode]) -> None:
        for index, statement in enumerate(body):
            rows = list(self._rows(statement))
            if rows:
                self._before(body[:index][::-1], statement, rows)
                self._after(body[index + 1 :], rows)

    def _rows(self, statement: cst.CSTNode) -> Iterator[cst.Call]:
        """List the rows that a statement shows: a print, or a loop of prints."""
        for call in self._prints(statement):
            look = self._looks[call]
            if (look.stays and not look.is_empty) or look.is_padded:
                yield call

    def _prints(self, node: cst.CSTNode) -> Iterator[cst.Call]:
        """List the prints of a print statement or of a loop, at any depth."""
        if isinstance(node, cst.SimpleStatementLine | cst.Expr):
            only = node.body[0] if isinstance(node, cst.SimpleStatementLine) else node
            if isinstance(only, cst.Expr) and only.value in self._looks:
                yield cst.ensure_type(only.value, cst.Call)
        elif isinstance(node, cst.For | cst.While | cst.If | cst.With | cst.Else):
            for suite in _suites(node):
                for statement in suite.body:
                    yield from self._prints(statement)

    def _before(
        self, body: Sequence[cst.CSTNode], statement: cst.CSTNode, rows: list[cst.Call]
    ) -> None:
        """Mark the title and the heading before rows, and the rulers between them."""
        looks = [self._looks[row] for row in rows]
        in_columns = any(look.has_columns for look in looks)
        staying = any(look.stays for look in looks)
        is_small = _is_small_loop(statement) and staying
        is_near = True  # nothing but prints stands between
        is_headed = is_titled = False
        rulers: list[cst.Call] = []
        for earlier in body:
            if not isinstance(earlier, cst.SimpleStatementLine):
                break
            call = next(iter(self._prints(earlier)), None)
            if call is None:
                is_near = False
                continue
            look = self._looks[call]
            if look.is_empty:
                rulers += [call] * is_near
                continue
            heads = look.has_columns and in_columns
            heads = heads and (look.is_text or (staying and not is_headed))
            is_title = is_small or (look.is_heading and staying) or bool(is_headed and rulers)
            titles = is_near and look.is_text and is_title
            if look.stays or is_titled or not (heads or titles):
                break
            self._mark(call, rows)
            is_titled = not heads
            if heads:
                self._mark_rows(rows)
                is_small, is_near, is_headed = False, True, True  # a title may stand above it
        if is_headed or is_titled or (in_columns and staying):
            for ruler in rulers:
                self._mark(ruler, rows)

    def _mark_rows(self, rows: list[cst.Call]) -> None:
        for row in rows:
            if not self._looks[row].stays:
                self._mark(row, [it for it in rows if it is not row] or rows)

    def _after(self, body: Sequence[cst.CSTNode], rows: list[cst.Call]) -> None:
        """Mark the totals and the rulers below rows."""
        if not any(self._looks[row].stays or row in self.found for row in rows):
            return
        if not any(self._looks[row].has_columns for row in rows):
            return
        for later in body:
            call = next(iter(self._prints(later)), None)
            if call is None or not isinstance(later, cst.SimpleStatementLine):
                return
            look = self._looks[call]
            if not (look.is_empty or look.stays or look.has_columns):
                return
            if not look.stays or look.is_empty:
                self._mark(call, rows)

    def _mark(self, call: cst.Call, rows: list[cst.Call]) -> None:
        if self._looks[call].stream == self._looks[rows[0]].stream:
            self.found.setdefault(call, self._module.lines(rows[0])[0])


def _is_small_loop(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.For | cst.While) and len(statement.body.body) <= _SMALL_LOOP
