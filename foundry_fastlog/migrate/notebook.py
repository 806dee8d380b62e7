"""The migration of a Jupyter notebook: its code cells are one program.

Only the sources of changed cells are replaced in the file's text: outputs, metadata and the layout
of the JSON stay as they are.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

from foundry_fastlog.migrate.calls import MENTIONS
from foundry_fastlog.migrate.model import FileReport, Finding, Options, Status
from foundry_fastlog.migrate.module import source_lines
from foundry_fastlog.migrate.plan import MARKED, is_marked
from foundry_fastlog.migrate.source import migrate_source

__all__ = ["migrate_notebook"]

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
# Cell magics whose cell is Python code; the cell of any other is something else.
_PYTHON_MAGICS = frozenset({"time", "timeit", "capture", "prun", "memit", "mprun", "snakeviz"})
# A line of IPython's that is no Python: "%matplotlib inline", "!ls", "?name", "files = !ls".
_MAGIC = re.compile(
    r"(?P<margin>[ \t]*)(?P<target>[\w.,\[\]'\" ]+=[ \t]*)?(?:%%?\w.*|!.+|\?\??[\w.]+)"
    r"|[ \t]*%?[\w.]+\?\??[ \t]*"
)
_LINE_MAGIC = re.compile(r"(?:[\w.,\[\]'\" ]+=)?[ \t]*(%%?\w+)")
# What may print in a cell that is not looked at.
_PRINTS = re.compile(r"\bprint *[('\"]|\btqdm\.write\b")
_MARK = "__fastlog_{}_{}__"
_MARKED = re.compile(r"^(?P<margin>[ \t]*)(?P<target>.*?)#? ?__fastlog_magic_(?P<number>\d+)__$")


@dataclass(slots=True)
class _Cell:
    """A code cell.

    Attributes:
        number: Its number among all cells, from 1.
        start: Where the JSON of its source starts in the file.
        end: Where it ends.
        lines: The lines of its source, with their ends.
        code: The lines as Python: each magic is a comment or a name.
        magics: The lines that were replaced in `code`, by number.
    """

    number: int
    start: int
    end: int
    lines: list[str]
    code: list[str]
    magics: dict[int, str]


def migrate_notebook(text: str, options: Options | None = None, path: str = "") -> FileReport:
    """Find the prints in a notebook's text, and convert those that are understood.

    Args:
        text: The notebook's JSON.
        options: How to convert.
        path: Its name in the report.

    Returns:
        The findings, by cell, and the converted text. `error` is set if it is no notebook.
    """
    report = FileReport(path, source=text, result=text)
    if not MENTIONS.search(text):
        return report
    try:
        data = json.loads(text)
    except RecursionError:
        report.error = "is nested too deeply, so it was not looked at"
        return report
    except ValueError as error:
        line = f": see line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        report.error = f"is not valid JSON{line}, so it was not looked at"
        return report
    if not _is_notebook(data):
        report.error = "is not a notebook of format 4, so it was not looked at"
        return report
    if _language(data) not in ("python", ""):
        return report
    cells = list(_cells(text, report))
    if not cells:
        return report
    options = options or Options()
    if options.set_up == "main":  # a notebook is always the program
        options = replace(options, set_up="always")
    _migrate_cells(cells, options, report)
    return report


def _is_notebook(data: object) -> bool:
    """Return whether parsed JSON has the parts of a notebook that are looked at."""
    version = data.get("nbformat") if isinstance(data, dict) else None
    cells = data.get("cells") if isinstance(data, dict) else None
    if not isinstance(version, int) or version < 4 or not isinstance(cells, list):
        return False
    sources = [cell.get("source", "") if isinstance(cell, dict) else None for cell in cells]
    lines = [source if isinstance(source, list) else [source] for source in sources]
    return all(isinstance(line, str) for some in lines for line in some)


def _language(notebook: dict[str, object]) -> str:
    """Return the language of a notebook, in lower case; "" if it does not say."""
    metadata = notebook.get("metadata")
    for key, name in (("kernelspec", "language"), ("language_info", "name")):
        found = metadata.get(key) if isinstance(metadata, dict) else None
        language = found.get(name) if isinstance(found, dict) else None
        if isinstance(language, str):
            return language.lower()
    return ""


# ---- JSON ----------------------------------------------------------------------------------


def _members(text: str, start: int) -> Iterator[tuple[object, int, int]]:
    """List the items of a JSON object or array: key, start and end of each value.

    Args:
        text: Valid JSON.
        start: Where the object or array starts.
    """
    is_object = text[start] == "{"
    at = _SPACE.match(text, start + 1).end()  # type: ignore[union-attr] # matches always
    key: object = 0
    while text[at] not in "]}":
        if is_object:
            key, at = _DECODER.raw_decode(text, at)
            at = text.index(":", at) + 1
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        end = _DECODER.raw_decode(text, at)[1]
        yield key, at, end
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        if text[at] == ",":
            at = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]


def _cells(text: str, report: FileReport) -> Iterator[_Cell]:
    """List the code cells that are Python, and report the others that may print."""
    top = {key: at for key, at, _ in _members(text, text.index("{"))}
    for number, (_, at, _) in enumerate(_members(text, top["cells"]), 1):
        spans = {key: (start, end) for key, start, end in _members(text, at)}
        values = {key: json.loads(text[slice(*spans[key])]) for key in spans}
        source = values.get("source", "")
        source = source if isinstance(source, str) else "".join(source)
        if values.get("cell_type") != "code" or not source.strip():
            continue
        cell = _Cell(number, *spans["source"], source_lines(source), [], {})
        reason = _parse(cell)
        if reason is None:
            report.findings += _in_magics(cell)
            yield cell
        elif _PRINTS.search(source):
            line = next(n for n, it in enumerate(cell.lines, 1) if _PRINTS.search(it))
            old = cell.lines[line - 1].strip()
            report.findings.append(Finding(line, 0, "left", old, reason=reason, cell=number))


def _parse(cell: _Cell) -> str | None:
    """Turn a cell's source into Python; return why that is impossible."""
    first = next(line for line in cell.lines if line.strip()).split()
    if first[0].startswith("%%") and first[0][2:] not in _PYTHON_MAGICS:
        return f"is in a cell of {first[0]}, which was not looked at"
    if _error(cell.lines) is None:
        cell.code = cell.lines
        return None
    goes_on = False
    for number, line in enumerate(cell.lines):
        match = _MAGIC.fullmatch(line.rstrip("\r\n"))
        if match is None and not goes_on:
            cell.code.append(line)
            continue
        name = _MARK.format("magic", number)
        margin = line[: len(line) - len(line.lstrip())] if not goes_on else ""
        target = (match["target"] or "") if match is not None else ""
        if not margin and not target:
            name = f"# {name}"
        cell.magics[number] = line
        cell.code.append(f"{margin}{target}{name}\n")
        goes_on = line.rstrip("\r\n").endswith("\\")
    error = _error(cell.code)
    return None if error is None else f"is in a cell that is not valid Python: {error}"


def _in_magics(cell: _Cell) -> Iterator[Finding]:
    """List the lines of IPython's that may print: ``%time print(x)``."""
    for number, line in cell.magics.items():
        magic = _LINE_MAGIC.match(line)
        if magic is not None and _PRINTS.search(line):
            status: Status = "kept" if is_marked(line) else "left"
            reason = f"is in a line of {magic[1]}, which was not looked at"
            reason = MARKED if status == "kept" else reason
            yield Finding(number + 1, 0, status, line.strip(), reason=reason, cell=cell.number)


def _error(lines: list[str]) -> str | None:
    """Return what is wrong with the code of a cell, None if nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse("".join(lines))
        except SyntaxError as error:
            return f"see its line {error.lineno}"
        except (ValueError, RecursionError, MemoryError) as error:
            return str(error) or "nested too deeply"
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    if any(isinstance(text, str) and "__fastlog_magic" in text for text in texts):
        return "a text in it has a line like a magic"
    return None


# ---- cells ---------------------------------------------------------------------------------


def _migrate_cells(cells: list[_Cell], options: Options, report: FileReport) -> None:
    """Migrate all cells as one module, and put each cell's part of the result in its place."""
    code = ""
    starts = []  # the line, from 1, on which each cell starts
    for index, cell in enumerate(cells):
        if index:
            code += f"# {_MARK.format('cell', index)}\n"
        starts.append(code.count("\n") + 1)
        code += "".join(cell.code).rstrip("\n") + "\n"
    found = migrate_source(code, options, report.path)
    if found.error is not None:  # its line is one of all cells together
        report.error = found.error.partition(":")[0]
        return

    def place(line: int) -> tuple[int, int]:
        index = max(0, sum(start <= line for start in starts) - 1)
        return cells[index].number, line - starts[index] + 1

    for finding in found.findings:
        number, line = place(finding.line)
        report.findings.append(replace(finding, cell=number, line=line))
    report.findings.sort(key=lambda it: (it.cell or 0, it.line, it.column))
    report.added, report.set_up = found.added, found.set_up
    if found.added:
        report.cell, report.added_at = place(found.added_at)
        report.set_up_at = report.added_at if found.set_up_at else 0
    is_ascii = report.source.isascii()
    parts = re.split(r"^# __fastlog_cell_\d+__\n", found.result, flags=re.MULTILINE)
    for cell, part in reversed(list(zip(cells, parts, strict=True))):
        new = _restored(cell, part)
        if new != cell.lines:
            source = _json_of(new, report.source[cell.start : cell.end], is_ascii=is_ascii)
            report.result = report.result[: cell.start] + source + report.result[cell.end :]


def _restored(cell: _Cell, part: str) -> list[str]:
    """Return the lines of a migrated cell, with its magics."""
    lines = []
    for line in source_lines(part):
        match = _MARKED.match(line.rstrip("\n"))
        lines.append(line if match is None else cell.magics[int(match["number"])])
    old = "".join(cell.lines)
    return source_lines("".join(lines).rstrip("\n") + old[len(old.rstrip("\n")) :])


def _json_of(lines: list[str], old: str, *, is_ascii: bool) -> str:
    """Return the JSON of a source, in the layout of the old one."""
    if not old.startswith("["):
        return json.dumps("".join(lines), ensure_ascii=is_ascii)
    spans = [(start, end) for _, start, end in _members(old, 0)]
    known = {json.loads(old[start:end]): old[start:end] for start, end in spans}
    texts = [known.get(line) or json.dumps(line, ensure_ascii=is_ascii) for line in lines]
    space = old[1 : spans[0][0]]
    comma = old[spans[0][1] : spans[1][0]] if len(spans) > 1 else f",{space or ' '}"
    return f"[{space}{comma.join(texts)}{old[spans[-1][1] :]}"
