"""The migration of one source text."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from itertools import zip_longest

import libcst as cst

from foundry_fastlog.migrate.compose import EMPTY, Composer, Entry
from foundry_fastlog.migrate.loggers import Insertion, LoggerChooser
from foundry_fastlog.migrate.model import FileReport, Finding, LeftAloneError, Options
from foundry_fastlog.migrate.module import Module, source_lines
from foundry_fastlog.migrate.render import render_call
from foundry_fastlog.migrate.template import TemplateReader

__all__ = ["migrate_source"]

_MARK = re.compile(r"#.*\bnoqa\b(?:\s*$|\s*:[^#]*\bT20[13]?\b)", re.IGNORECASE)


def migrate_source(source: str, options: Options | None = None, path: str = "") -> FileReport:
    """Find the prints in a source text, and convert those that are understood.

    Args:
        source: The text, with its original line endings.
        options: How to convert.
        path: Its name in the report.

    Returns:
        The findings and the converted text. Only the print calls are changed; an import and a
        logger are added if they are needed and missing.
    """
    report = FileReport(path, source=source, result=source)
    if not re.search(r"\bprint\b", source):
        return report
    try:
        return _migrated(source, options or Options(), report)
    except cst.ParserSyntaxError as error:
        report.error = f"is not valid Python: see line {error.raw_line}"
    except RecursionError:
        report.error = "is nested too deeply"
    return report


def _migrated(source: str, options: Options, report: FileReport) -> FileReport:
    """Fill a report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # literals with invalid escapes cause warnings
        tree = cst.parse_module(source)
        prints = _Prints()
        tree.visit(prints)
        if tree.code != source:
            line = _first_difference(source, tree.code)
            report.error = f"is not reproduced unchanged by LibCST: see line {line}"
        elif prints.names:  # analysing a module's names is slow, so only do it if needed
            _Migration(Module(tree), options, report).run(prints.names)
    return report


def _first_difference(one: str, other: str) -> int:
    """Return the number, from 1, of the first line in which two texts differ."""
    pairs = zip_longest(source_lines(one), source_lines(other))
    return next(number for number, (a, b) in enumerate(pairs, 1) if a != b)


class _Prints(cst.CSTVisitor):
    """Collects every use of the name print."""

    def __init__(self) -> None:
        self.names: list[cst.Name] = []

    def visit_Name(self, node: cst.Name) -> None:
        if node.value == "print":
            self.names.append(node)


class _Comments(cst.CSTVisitor):
    def __init__(self) -> None:
        self.comments = self.yields = False

    def visit_Comment(self, node: cst.Comment) -> None:  # noqa: ARG002 - LibCST's protocol
        self.comments = True

    def visit_Yield(self, node: cst.Yield) -> None:  # noqa: ARG002 - LibCST's protocol
        self.yields = True


class _Migration:
    def __init__(self, module: Module, options: Options, report: FileReport) -> None:
        self._module = module
        self._options = options
        self._report = report
        self._loggers = LoggerChooser(module, options)
        self._composer = Composer(module.code, module.start, options.level)
        self._lines = source_lines(report.source)
        self._need_logger: list[cst.Call] = []
        self._empty: list[cst.Call] = []
        self._edits: list[tuple[int, int, str]] = []

    def run(self, names: list[cst.Name]) -> None:
        """Fill the report with the outcome for each use of print."""
        calls = [call for name in names if (call := self._look_at(name)) is not None]
        calls.sort(key=self._module.start)
        converted = {call: self._convert(call) for call in calls}
        insertion = self._insertion(converted)
        self._drop(converted)
        for call, finding in converted.items():
            self._report.findings.append(finding)
            if finding.new:
                self._edits.append((*self._module.span(call), finding.new))
        self._report.findings.sort(key=lambda finding: (finding.line, finding.column))
        self._report.result = self._edited(insertion)

    # ---- one print -----------------------------------------------------------------------

    def _look_at(self, name: cst.Name) -> cst.Call | None:
        """Return the call of a name, if it is called; report other uses of the builtin."""
        parent = self._module.parents[name]
        if isinstance(parent, cst.Call) and parent.func is name:
            return parent
        if isinstance(parent, cst.Arg) and parent.keyword is name:
            return None
        if not self._module.is_builtin("print", name):
            return None
        statement = next(
            (it for it in self._module.ancestors(name) if isinstance(it, cst.BaseSmallStatement)),
            name,
        )
        self._report.findings.append(
            self._finding(name, statement, reason="print itself is passed around or stored")
        )
        return None

    def _finding(
        self, node: cst.CSTNode, shown: cst.CSTNode, *, reason: str, kept: bool = False
    ) -> Finding:
        return Finding(
            line=self._module.lines(node)[0],
            column=self._module.column(node),
            status="kept" if kept else "left",
            old=self._module.code(shown).strip(),
            reason=reason,
        )

    def _convert(self, call: cst.Call) -> Finding:
        first, last = self._module.lines(call)
        if any(_MARK.search(line) for line in self._lines[first - 1 : last]):
            return self._finding(call, call, reason="marked with noqa", kept=True)
        try:
            entry = self._entry(call)
            target, note, undefined = self._loggers.choose(
                call, with_fields=bool(entry.fields) or entry.exception
            )
        except LeftAloneError as left:
            if str(left) == EMPTY and self._options.drop_empty:
                self._empty.append(call)
            return self._finding(call, call, reason=str(left))
        if undefined:
            self._need_logger.append(call)
        fields = list(entry.fields)
        if entry.exception and entry.level in ("error", "critical"):
            fields.append(("exc_info", "True"))
        line = self._lines[first - 1]
        new = render_call(
            f"{target}.{entry.level}",
            entry.message,
            fields,
            margin=line[: len(line) - len(line.lstrip())],
            column=self._module.column(call),
            line_length=self._options.line_length,
            indent=self._module.tree.default_indent,
            newline=self._module.tree.default_newline,
            known=self._report.source,
        )
        return Finding(
            line=first,
            column=self._module.column(call),
            status="convert",
            old=self._module.code(call),
            new=new,
            level=entry.level,
            note=note,
        )

    def _entry(self, call: cst.Call) -> Entry:
        """Parse a call, or refuse it."""
        module = self._module
        assert isinstance(call.func, cst.Name)
        if not module.is_builtin("print", call.func):
            line = module.line_of_binding("print", call.func)
            where = f" (line {line})" if line else ""
            raise LeftAloneError(f"print is not the builtin here{where}")
        if self._loggers.has_star_import:
            raise LeftAloneError("print may not be the builtin: a star import may define it")
        if not isinstance(module.parents[call], cst.Expr):
            raise LeftAloneError("its value is used")
        inside = _Comments()
        call.visit(inside)
        if inside.comments:
            raise LeftAloneError("contains a comment")
        if inside.yields:
            raise LeftAloneError("contains a yield")

        def has_builtin(name: str) -> bool:
            return module.is_builtin(name, call.func)

        reader = TemplateReader(
            module.code, lambda name: module.is_builtin(name.value, name), module.qualified
        )
        return self._composer.compose(reader.read(call), self._caught(call), has_builtin)

    def _caught(self, node: cst.CSTNode) -> str | None:
        """Return the name of the exception caught by the handler that encloses a node."""
        for outer in self._module.ancestors(node):
            if isinstance(outer, cst.FunctionDef | cst.ClassDef):
                return None
            if isinstance(outer, cst.ExceptHandler | cst.ExceptStarHandler) and outer.name:
                assert isinstance(outer.name.name, cst.Name)
                return outer.name.name.value
        return None

    # ---- the file ------------------------------------------------------------------------

    def _insertion(self, converted: dict[cst.Call, Finding]) -> Insertion | None:
        """Find the place for the logger; if there is none, the prints that need it stay."""
        if not self._need_logger:
            return None
        try:
            insertion = self._loggers.insertion(self._need_logger)
        except LeftAloneError as left:
            for call in self._need_logger:
                converted[call] = self._finding(call, call, reason=str(left))
            return None
        self._report.added = insertion.lines
        self._report.added_at = insertion.line
        return insertion

    def _drop(self, converted: dict[cst.Call, Finding]) -> None:
        """Remove the prints that show nothing; a block's last statement becomes pass."""
        module = self._module
        gone: dict[cst.CSTNode, int] = {}
        for call in self._empty:
            line = module.parents[module.parents[call]]
            block = module.parents[line]
            new = "pass"
            if isinstance(line, cst.SimpleStatementLine) and isinstance(
                block, cst.IndentedBlock | cst.Module
            ):
                alone = len(line.body) == 1 and line.trailing_whitespace.comment is None
                if (
                    alone
                    and gone.get(block, 0) + 1 < len(block.body)
                    and not _before_text(line, block)
                ):
                    gone[block] = gone.get(block, 0) + 1
                    first, last = module.lines(line)
                    start = len("".join(self._lines[: first - 1]))
                    end = start + len("".join(self._lines[first - 1 : last]))
                    self._edits.append((start, end, ""))
                    new = ""
            converted[call] = replace(converted[call], status="convert", reason=None, new=new)

    def _edited(self, insertion: Insertion | None) -> str:
        """Return the source with all edits applied."""
        if insertion is not None:
            newline = self._module.tree.default_newline
            before = "".join(self._lines[: insertion.line - 1])
            rest = self._lines[insertion.line - 1 :]
            text = "".join(line + newline for line in insertion.lines)
            if rest and rest[0].strip():
                text += newline
            if before and not before.endswith(("\n", "\r")):
                text = newline + text
            place = len(before)
            self._edits.append((place, place, text))
        result = self._report.source
        for start, end, text in sorted(self._edits, reverse=True):
            result = result[:start] + text + result[end:]
        return result


def _before_text(line: cst.SimpleStatementLine, block: cst.IndentedBlock | cst.Module) -> bool:
    """Return whether removing a statement would turn the string after it into a docstring."""
    index = list(block.body).index(line)
    following = block.body[index + 1 : index + 2]
    return index == 0 and any(
        isinstance(item, cst.SimpleStatementLine)
        and isinstance(item.body[0], cst.Expr)
        and isinstance(item.body[0].value, cst.SimpleString | cst.ConcatenatedString)
        for item in following
    )
