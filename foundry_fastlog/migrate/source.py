"""The migration of one source text."""

from __future__ import annotations

import warnings
from itertools import zip_longest

import libcst as cst

from foundry_fastlog.migrate.calls import MENTIONS, PrintFinder, is_bar_write
from foundry_fastlog.migrate.compose import EMPTY, Entry
from foundry_fastlog.migrate.entry_point import (
    NAMED_LOGGER,
    OTHER_LOGGER,
    SETS_UP,
    calls_itself,
    main_block,
    set_up_call,
)
from foundry_fastlog.migrate.groups import stands_alone
from foundry_fastlog.migrate.loggers import Insertion, LoggerChooser
from foundry_fastlog.migrate.model import FileReport, Finding, LeftAloneError, Options, Status
from foundry_fastlog.migrate.module import Module, function_of, source_lines
from foundry_fastlog.migrate.plan import MARKED, Print, drop_frames, plan
from foundry_fastlog.migrate.reach import early_functions, worker_functions
from foundry_fastlog.migrate.render import render_call, string_literal

__all__ = ["migrate_source"]


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
    if not MENTIONS.search(source):
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
        finder = PrintFinder()
        tree.visit(finder)
        if tree.code != source:
            line = _first_difference(source, tree.code)
            report.error = f"is not reproduced unchanged by LibCST: see line {line}"
        elif finder.names or finder.writes:  # analysing names is slow: only if it is needed
            _Migration(Module(tree), options, report).run(finder)
    return report


def _first_difference(one: str, other: str) -> int:
    """Return the number, from 1, of the first line in which two texts differ."""
    pairs = zip_longest(source_lines(one), source_lines(other))
    return next(number for number, (a, b) in enumerate(pairs, 1) if a != b)


class _Migration:
    def __init__(self, module: Module, options: Options, report: FileReport) -> None:
        self._module = module
        self._options = options
        self._report = report
        self._loggers = LoggerChooser(module, options)
        self._lines = source_lines(report.source)
        self._main = main_block(module, self._lines)
        self._edits: list[tuple[int, int, str]] = []

    def run(self, finder: PrintFinder) -> None:
        """Fill the report with the outcome for each use of print."""
        module = self._module
        calls = [call for name in finder.names if (call := self._look_at(name)) is not None]
        calls += [call for call in finder.writes if is_bar_write(module, call)]
        calls.sort(key=module.start)
        prints = plan(module, self._options, self._loggers, calls, self._lines)
        self._keep_early(prints)
        insertion = self._insertion(prints)
        drop_frames(self._module, prints)
        converted = [item for item in prints if item.reason is None]
        if converted and not SETS_UP.search(self._report.source):
            insertion = self._with_set_up(insertion, converted)
        if insertion is not None:
            self._report.added, self._report.added_at = insertion.lines, insertion.line
        self._report.findings += map(self._finding_of, prints)
        self._drop([item for item in prints if self._is_removed(item)])
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
        reason = "print itself is passed around or stored"
        self._report.findings.append(self._finding(name, statement, "left", reason=reason))
        return None

    def _finding(
        self,
        node: cst.CSTNode,
        shown: cst.CSTNode,
        status: Status,
        new: str | None = None,
        *,
        level: str | None = None,
        reason: str | None = None,
        note: str | None = None,
    ) -> Finding:
        line, column = self._module.lines(node)[0], self._module.column(node)
        old = self._module.code(shown).strip()
        return Finding(line, column, status, old, new, level, reason, note)

    def _is_removed(self, item: Print) -> bool:
        return item.gone is not None or (item.reason == EMPTY and self._options.drop_empty)

    def _finding_of(self, item: Print) -> Finding:
        call = item.call
        if self._is_removed(item):
            return self._finding(call, call, "convert", "", note=item.gone)
        if item.entry is None or item.reason is not None:
            status: Status = "kept" if item.reason == MARKED else "left"
            return self._finding(call, call, status, reason=item.reason)
        new = self._log_call(item, item.entry)
        self._edits.append((*self._module.span(call), new))
        return self._finding(call, call, "convert", new, level=item.entry.level, note=item.note)

    def _log_call(self, item: Print, entry: Entry) -> str:
        """Return the source of the call that replaces a print."""
        fields = list(entry.fields)
        if entry.traceback:
            fields.append(("exc_info", "True"))
        line = self._lines[self._module.lines(item.call)[0] - 1]
        return render_call(
            f"{item.target}.{entry.level}",
            entry.message,
            fields,
            margin=line[: len(line) - len(line.lstrip())],
            column=self._module.column(item.call),
            line_length=self._options.line_length,
            indent=self._module.tree.default_indent,
            newline=self._module.tree.default_newline,
            known=self._report.source,
        )

    # ---- the file ------------------------------------------------------------------------

    def _is_early(self, call: cst.Call) -> bool:
        """Return whether a call runs when the module is imported."""
        return function_of(self._module, call) is None

    def _keep_early(self, prints: list[Print]) -> None:
        """Refuse the prints of a program that run where its main block has not set up logging."""
        if self._main is None or self._options.set_up == "never":
            return
        source, end = self._report.source, self._main.start
        if found := SETS_UP.search(source, 0, end):
            end = found.start()
            early, workers = set(), set()
        else:
            early = early_functions(self._module, self._main)
            workers = worker_functions(self._module, source)
        if self._options.set_up == "always":
            early, workers = set(), set()
        for item in prints:
            function = function_of(self._module, item.call)
            is_early = function is None and self._module.start(item.call) < end
            if item.reason is not None:
                continue
            if is_early or function in early:
                item.keep("runs before the main block: a log message would not show yet")
            elif function in workers:
                item.keep("runs in a worker process, which does not run the main block")

    def _insertion(self, prints: list[Print]) -> Insertion | None:
        """Find the place for the logger; if there is none, the prints that need it stay."""
        needing = [it for it in prints if it.needs_logger and it.reason is None]
        if not needing:
            return None
        try:
            insertion = self._loggers.insertion([item.call for item in needing])
        except LeftAloneError as left:
            for item in needing:
                item.keep(str(left))
            return None
        return insertion

    def _with_set_up(self, insertion: Insertion | None, converted: list[Print]) -> Insertion | None:
        """Insert the call that sets up logging where the program starts, or say which it is."""
        module, report, wish, main = self._module, self._report, self._options.set_up, self._main
        is_free = insertion is not None and self._loggers.has_free_set_up()
        is_inserted = is_free and (wish == "always" or (wish == "main" and main is not None))
        has_main = main is not None or report.path.endswith(".ipynb")
        early = any(self._is_early(item.call) for item in converted)
        report.set_up = set_up_call(
            report.path,
            has_main=has_main,
            runs_code=early or calls_itself(module),
            is_inserted=is_inserted,
            debug=any(item.entry is not None and item.entry.level == "debug" for item in converted),
        )
        if others := self._other_set_ups(converted, report.set_up):
            keeps = insertion is not None or NAMED_LOGGER.search(report.source) is not None
            report.set_up = "; ".join([*([report.set_up] if keeps else []), *others])
        if insertion is None or not is_inserted:
            return insertion
        if main is None:
            report.set_up_at = insertion.line
            return insertion.with_set_up(report.set_up)
        report.set_up_at = main.line
        calls = report.set_up.split("; ") if main.margin else [report.set_up]
        text = "".join(f"{main.margin}{call}{main.end}" for call in calls)
        self._edits.append((main.place, main.place, text))
        return insertion.with_set_up("")

    def _other_set_ups(self, converted: list[Print], call: str) -> list[str]:
        """Return calls for the loggers of other names that the module has, and that are used."""
        if all(item.needs_logger for item in converted):
            return []
        found = {}
        for name in OTHER_LOGGER.findall(self._report.source):
            first = string_literal(name.partition(".")[0])
            other = call.replace("__name__", first, 1)
            found[first] = other if other != call else f"setup_logging({first})"
        return [other for first, other in found.items() if f"({first}" not in call]

    def _drop(self, prints: list[Print]) -> None:
        """Remove prints; a block's last statement becomes pass."""
        module = self._module
        gone: dict[cst.CSTNode, int] = {}
        for item in prints:
            line = module.parents[module.parents[item.call]]
            block = module.parents[line]
            span, new = module.span(item.call), "pass"
            if (
                stands_alone(line)
                and isinstance(block, cst.IndentedBlock | cst.Module)
                and gone.get(block, 0) + 1 < len(block.body)
                and not _before_text(line, block)
            ):
                gone[block] = gone.get(block, 0) + 1
                first, last = module.lines(line)
                start = len("".join(self._lines[: first - 1]))
                span = (start, start + len("".join(self._lines[first - 1 : last])))
                new = ""
            self._edits.append((*span, new))

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


def _before_text(line: cst.CSTNode, block: cst.IndentedBlock | cst.Module) -> bool:
    """Return whether removing a statement would turn the string after it into a docstring."""
    following = block.body[1:2] if block.body[0] is line else ()
    return any(
        isinstance(item, cst.SimpleStatementLine)
        and isinstance(item.body[0], cst.Expr)
        and isinstance(item.body[0].value, cst.SimpleString | cst.ConcatenatedString)
        for item in following
    )
