"""Decides for each print of a module whether it is converted, and to what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import libcst as cst

from foundry_fastlog.migrate.calls import Inside, says_words
from foundry_fastlog.migrate.compose import EMPTY, NO_WORDS, Caught, Composer, Entry
from foundry_fastlog.migrate.groups import (
    Line,
    Look,
    look_of,
    shared_lines,
    stands_alone,
    table_lines,
)
from foundry_fastlog.migrate.loggers import LoggerChooser
from foundry_fastlog.migrate.model import LeftAloneError, Options
from foundry_fastlog.migrate.module import Module, function_of
from foundry_fastlog.migrate.reach import redirected
from foundry_fastlog.migrate.template import (
    ELSEWHERE,
    MISMATCH,
    STARRED,
    Template,
    TemplateReader,
    is_print,
    leaves_line_open,
)

__all__ = ["MARKED", "Print", "drop_frames", "is_marked", "plan"]

#: The reason to keep what its author marked.
MARKED = "marked with noqa"
_CONTINUES = "the line continues after it (end=)"
_REPRS = frozenset({"__repr__", "__str__", "__format__"})
_HELPERS = re.compile(
    r"_*(?:(?:print|show|display)_)?(?:usage|help|version)(?:_(?:and|text|message)\w*)?"
)
_HELP_ASKED = re.compile(r"\.(?:help|version)\b|['\"]--?(?:h|help|version)['\"]")
_MARK = re.compile(r"#.*\bnoqa\b(?:\s*$|\s*:[^#]*\bT20[13]?\b)", re.IGNORECASE)


def is_marked(line: str) -> bool:
    """Return whether the author of a line wants its prints to stay."""
    return _MARK.search(line) is not None


@dataclass(slots=True)
class Print:
    """A print and its fate.

    Attributes:
        call: The call.
        template: What it shows, if that is understood.
        entry: The log call that replaces it.
        target: The code of that call's logger.
        note: A remark for the user.
        reason: Why it stays; None if it is converted.
        gone: Why it is removed: another's log call says its text, or it is that one's decoration.
        openers: The prints whose line this one ends.
        needs_logger: The module must define the logger first.
    """

    call: cst.Call
    template: Template | None = None
    entry: Entry | None = None
    target: str = ""
    note: str | None = None
    reason: str | None = None
    gone: str | None = None
    openers: list[Print] = field(default_factory=list)
    needs_logger: bool = False

    def keep(self, reason: str) -> None:
        """Let it stay, and the prints that it would have replaced with it."""
        for item in (self, *self.openers):
            item.reason, item.gone = reason, None


class _Planner:
    def __init__(
        self, module: Module, options: Options, loggers: LoggerChooser, lines: Sequence[str]
    ) -> None:
        self._module = module
        self._loggers = loggers
        self._lines = lines
        self._redirections, self._redirected = redirected(module)
        self._composer = Composer(module.code, module.start, options.level)
        self._reader = TemplateReader(
            module.code,
            lambda name: module.is_builtin(name.value, name),
            module.qualified,
            module.constant,
        )

    def plan(self, calls: list[cst.Call]) -> list[Print]:
        """Decide about each call; they are in source order."""
        prints = {call: self._read(call) for call in calls}
        here = [it.call for it in prints.values() if not (it.reason or "").startswith(ELSEWHERE)]
        shared = shared_lines(self._module, here)
        for line in shared:
            self._share(line, [prints[call] for call in line.calls])
        for item in prints.values():
            self._compose(item)
        self._keep_tables(prints)
        for item in prints.values():
            self._choose(item)
        for line in shared:
            together = [prints[call] for call in line.calls]
            if any(item.reason is not None for item in together):
                self._keep(together)
        return list(prints.values())

    # ---- reading -------------------------------------------------------------------------

    def _read(self, call: cst.Call) -> Print:
        first, last = self._module.lines(call)
        if any(map(is_marked, self._lines[first - 1 : last])):
            return Print(call, reason=MARKED)
        try:
            self._check(call)
            return Print(call, self._reader.read(call))
        except LeftAloneError as left:
            return Print(call, reason=str(left))

    def _check(self, call: cst.Call) -> None:
        """Refuse a call that is not the builtin's, or cannot be replaced where it stands."""
        module = self._module
        if is_print(call) and not module.is_builtin("print", call.func):
            line = module.line_of_binding("print", call.func)
            where = f" (line {line})" if line else ""
            raise LeftAloneError(f"print is not the builtin here{where}")
        if is_print(call) and self._loggers.has_star_import:
            raise LeftAloneError("print may not be the builtin: a star import may define it")
        if not isinstance(module.parents[call], cst.Expr):
            raise LeftAloneError("its value is used")
        inside = Inside()
        call.visit(inside)
        if inside.comments:
            raise LeftAloneError("contains a comment")
        if inside.yields:
            raise LeftAloneError("contains a yield")
        self._check_purpose(call)

    def _check_purpose(self, call: cst.Call) -> None:
        """Refuse a call whose text is what the program is asked for."""
        function = function_of(self._module, call)
        name = "" if function is None else function.name.value
        if name in _REPRS:
            raise LeftAloneError(f"in {name}: a logger may need that text itself")
        if _HELPERS.fullmatch(name):
            raise LeftAloneError(f"in {name}(): what it shows is the program's output")
        if function in self._redirected:
            raise LeftAloneError(f"in {name}(), called where redirect_stdout takes the text")
        inner: cst.CSTNode = call
        for outer in self._module.ancestors(call):
            if outer in self._redirections:
                raise LeftAloneError("where redirect_stdout or redirect_stderr takes the text")
            asked = outer.test if isinstance(outer, cst.If) and inner is outer.body else None
            if asked is not None and _HELP_ASKED.search(self._module.code(asked)):
                raise LeftAloneError("shows the program's help or version")
            inner = outer

    # ---- prints that share a line --------------------------------------------------------

    def _share(self, line: Line, prints: list[Print]) -> None:
        """Join the prints of a line, or refuse them all."""
        *openers, last = prints
        template = last.template
        joined = line.is_plain and template is not None
        for opener in reversed(openers):
            if opener.template is None or template is None or not joined:
                joined = False
                break
            same_place = opener.template.to_stderr == template.to_stderr
            # What stands between may fail, or change a value: the text is said before it, too.
            early = len(openers) == 1 and not opener.template.has_values()
            joined = same_place and (line.is_adjacent or early)
            template = opener.template.followed_by(template)
        if joined:
            last.template, last.openers = template, openers
            for opener in openers:
                if line.is_adjacent:
                    opener.gone = f"the call in place of line {self._line(last.call)} says it"
            return
        self._keep(prints)

    def _keep(self, prints: list[Print]) -> None:
        """Refuse all prints of a line, each with its own reason if it has one."""
        first = next(it.call for it in prints if leaves_line_open(it.call))
        begins = f"ends the line that line {self._line(first)} begins (end=)"
        for item in prints:
            item.gone = None
            item.reason = item.reason or (_CONTINUES if leaves_line_open(item.call) else begins)

    def _line(self, node: cst.CSTNode) -> int:
        return self._module.lines(node)[0]

    # ---- composing -----------------------------------------------------------------------

    def _compose(self, item: Print) -> None:
        if item.template is None or item.reason is not None or item.gone is not None:
            return
        module, place = self._module, item.call.func
        try:
            item.entry = self._composer.compose(
                item.template, self._caught(item.call), lambda name: module.is_builtin(name, place)
            )
        except LeftAloneError as left:
            item.reason = str(left)

    def _caught(self, node: cst.CSTNode) -> Caught | None:
        """Return what the handler catches that encloses a node."""
        for outer in self._module.ancestors(node):
            if isinstance(outer, cst.FunctionDef | cst.ClassDef):
                return None
            if isinstance(outer, cst.ExceptHandler | cst.ExceptStarHandler):
                name = None if outer.name is None else cst.ensure_type(outer.name.name, cst.Name)
                return Caught(None if name is None else name.value)
        return None

    def _keep_tables(self, prints: dict[cst.Call, Print]) -> None:
        """Refuse what belongs to rows that stay: half a table helps nobody."""
        looks = {call: self._look(item) for call, item in prints.items()}
        for call, line in table_lines(self._module, looks).items():
            if prints[call].reason in (None, EMPTY):
                prints[call].reason = f"belongs to a table that stays (line {line})"

    def _look(self, item: Print) -> Look:
        options = {it.keyword.value: it.value for it in item.call.args if it.keyword is not None}
        stream = self._module.code(options["file"]) if "file" in options else ""
        if item.template is None:
            is_row = item.reason in (STARRED, MISMATCH) and not says_words(item.call)
            return Look(stays=is_row, has_columns=is_row, stream=stream)
        continues = item.reason == _CONTINUES and item.template.has_values()
        stays = item.reason == NO_WORDS or continues
        return look_of(item.template, stream, stays=stays, is_empty=item.reason == EMPTY)

    def _choose(self, item: Print) -> None:
        """Choose the logger."""
        if item.reason is not None or item.entry is None:
            return
        try:
            item.target, item.note, item.needs_logger = self._loggers.choose(
                item.call, with_fields=bool(item.entry.fields)
            )
        except LeftAloneError as left:
            item.reason = str(left)


def drop_frames(module: Module, prints: list[Print]) -> None:
    """Let decoration go with what it decorates: rulers and empty lines around converted prints."""
    places = {}
    for item in prints:
        statement = module.parents[module.parents[item.call]]
        if stands_alone(statement):
            block = module.parents[statement]
            places[block, list(block.children).index(statement)] = item
    run: list[Print] = []
    before = None
    for place in sorted(places, key=lambda it: module.start(places[it].call)):
        if before is None or place != (before[0], before[1] + 1):
            _drop_frames(module, run)
            run = []
        run.append(places[place])
        before = place
    _drop_frames(module, run)


def _drop_frames(module: Module, run: list[Print]) -> None:
    """Drop the decoration in prints that follow each other, if all others are converted."""
    said = [item for item in run if item.reason is None]
    if said and all(item.reason in (None, EMPTY) for item in run):
        for item in run:
            if item.reason == EMPTY:
                item.gone = f"decorates line {module.lines(said[0].call)[0]}"


def plan(
    module: Module,
    options: Options,
    loggers: LoggerChooser,
    calls: list[cst.Call],
    lines: Sequence[str],
) -> list[Print]:
    """Decide for each print whether it is converted, and to what.

    Args:
        module: The module.
        options: The user's options.
        loggers: Its loggers.
        calls: The prints, in source order.
        lines: The lines of its source.
    """
    return _Planner(module, options, loggers, lines).plan(calls)
