"""The migration on modules that others wrote, and on prints that nobody did."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import os
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from print_losses import losses_of

from foundry_fastlog.migrate import FileReport, Options, migrate_source

STDLIB = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = ("pip", "pytest", "_pytest", "rich", "hypothesis", "mypy", "numpy", "torch", "wandb")
# All are some minutes' work: a part of them, always the same, is looked at before CI does more.
RELEASE = os.environ.get("FASTLOG_CRASH") == "release"
CI = bool(os.environ.get("CI"))
# How many of the standard library and of each package, and more prints than which they have.
MODULES, PRINTS = (120, 100) if RELEASE else (24, 12) if CI else (10, 5)
OF_A_PACKAGE, PRINTS_OF_PACKAGES = (15, 20) if RELEASE else (5, 5) if CI else (1, 1)
LEVELS = "debug|info|warning|error|critical"
LOGS = re.compile(rf"^(self\.)?zz_logger\.({LEVELS})\(")
#: A logger's name that no module has, so that every print that is understood is converted.
OPTIONS = Options(logger="zz_logger")
ADDED = ("from foundry_fastlog import ", "zz_logger = StructuredLogger(__name__)")


def sources(root: Path, limit: int, size: int = 12_000) -> list[Path]:
    """List modules with prints: small ones, so that many are done in a short time."""
    prints = re.compile(rb"\bprint\(" if RELEASE else rb"\bprint\(f?['\"]")
    found = [
        path
        for path in sorted(root.rglob("*.py"))
        if root != STDLIB or "site-packages" not in path.parts
        if path.stat().st_size < size and prints.search(path.read_bytes())
    ]
    step = max(1, len(found) // limit)
    return found[step // 2 :: step][:limit]


def read(path: Path) -> str | None:
    """Return the text of a module that this Python compiles, else None."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, str(path), "exec", dont_inherit=True)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return None  # bad on purpose: a test's data
    return text


class Masker(ast.NodeTransformer):
    """Puts one same statement in the place of each converted print, and of each new call.

    Prints that are removed are left out, and so is the call that sets up logging.
    """

    def __init__(self, places: dict[tuple[int, int], bool]) -> None:
        self.places = places
        self.count = 0

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        place = value.lineno, value.col_offset
        is_new = isinstance(value, ast.Call) and LOGS.match(ast.unparse(value.func) + "(")
        is_removed = self.places.get(place) is False
        if is_removed or (not self.places and ast.unparse(value).startswith("setup_logging(")):
            return None
        if place in self.places or is_new:
            self.count += 1
            return ast.Expr(ast.Constant("masked"))
        return self.generic_visit(node)


def masked(source: str, report: FileReport | None) -> tuple[str, int]:
    """Return the syntax tree of a source without its prints and the lines that came new."""
    lines = source.encode().split(b"\n")
    places = {
        (found.line, len(lines[found.line - 1].decode()[: found.column].encode())): bool(found.new)
        for found in (report.findings if report else ())
        if found.status == "convert"
    }
    tree = ast.parse(source)
    masker = Masker(places)
    masker.visit(tree)
    if report is None:
        tree.body = [node for node in tree.body if not ast.unparse(node).startswith(ADDED)]
    return ast.dump(tree), masker.count


def comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def check(path: Path) -> int:
    """Migrate a module, check all that is promised, and return how many prints were converted."""
    source = read(path)
    if source is None:
        return 0
    report = migrate_source(source, OPTIONS, str(path))
    # A few sources are refused, for a space that LibCST loses.
    assert report.error is None or "LibCST" in report.error, path
    converted = 0 if report.error else report.count("convert")
    if converted == 0:
        assert report.result == source, path
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compile(report.result, str(path), "exec", dont_inherit=True)
        old, new = masked(source, report), masked(report.result, None)
    assert old[1] == new[1] == sum(bool(found.new) for found in report.findings), path
    assert old[0] == new[0], path
    assert losses_of(report) == [], path
    assert comments(source) == comments(report.result), path
    again = migrate_source(report.result, OPTIONS, str(path))
    assert again.result == report.result, path
    assert again.count("convert") == 0, path
    left = [item.old for item in report.findings if item.status != "convert"]
    assert [item.old for item in again.findings] == left, path
    return converted


def package_folders() -> Iterator[Path]:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            yield origin.parent if origin.name == "__init__.py" else origin


@pytest.mark.slow
@pytest.mark.parametrize(
    ("roots", "each", "least"),
    [([STDLIB], MODULES, PRINTS), (list(package_folders()), OF_A_PACKAGE, PRINTS_OF_PACKAGES)],
    ids=["the standard library", "installed packages"],
)
def test_modules_of_others_stay_what_they_are(roots: list[Path], each: int, least: int) -> None:
    """They compile, nothing but prints changes, and a second run does nothing."""
    paths = [path for root in roots for path in sources(root, each)]
    assert len(paths) >= each
    assert sum(map(check, paths)) > least


# ---- prints that nobody wrote ------------------------------------------------------------

WORD = st.text("abcdefgh %{}'\"\\=:,.()[]é✓\n-", max_size=12)
SPECS = st.sampled_from(["", ":.2f", ":>8", ":,", ":#x", "!r", "!s:>5", "="])


@st.composite
def prints(draw: st.DrawFn) -> str:
    """Write a print that shows values v(0), v(1), ... in some way."""
    texts = draw(st.lists(WORD, min_size=1, max_size=4))
    numbers = range(len(texts) - 1)
    style = draw(st.sampled_from(["f", "%", "format", "args", "+"]))
    if style == "f":
        body = ""
        for index, text in enumerate(texts):
            body += text.translate({10: "\\n", 34: '\\"', 92: "\\\\", 123: "{{", 125: "}}"})
            body += f"{{v({index}){draw(SPECS)}}}" if index in numbers else ""
        return f'print(f"{body}")'
    if style == "%":
        form = "%s".join(text.replace("%", "%%") for text in texts)
        return f"print({form!r} % ({''.join(f'v({i}), ' for i in numbers)}))"
    if style == "format":
        order = draw(st.permutations(list(numbers)))
        escaped = [text.replace("{", "{{").replace("}", "}}") for text in texts]
        form = escaped[0] + "".join(
            f"{{{place}}}{text}" for place, text in zip(order, escaped[1:], strict=True)
        )
        return f"print({form!r}.format({', '.join(f'v({i})' for i in numbers)}))"
    pieces = [repr(texts[0])]
    for index in numbers:
        pieces += [f"v({index})" if style == "args" else f"str(v({index}))", repr(texts[index + 1])]
    return f"print({(', ' if style == 'args' else ' + ').join(pieces)})"


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        def log(message: str, **fields: object) -> None:
            self.calls.append((message, fields))

        return log


def run(code: str, **names: object) -> list[int]:
    """Run code and return the numbers of the values that it asked for, in their order."""
    asked: list[int] = []

    def v(number: int) -> int:
        asked.append(number)
        return number * 1000 + 7

    exec(compile(code, "code", "exec"), {"v": v, **names})
    return asked


def shown_values(fields: dict[str, object]) -> Iterator[int]:
    """List the numbers of the values among fields, formatted or not."""
    for value in fields.values():
        number = int(value, 16) if isinstance(value, str) else value
        assert isinstance(number, int)
        yield (number - 7) // 1000


@given(prints())
def test_no_value_is_lost_or_asked_for_twice(code: str) -> None:
    """Whatever the text: each value is evaluated once, in its place, and is in a field."""
    report = migrate_source(code)
    assert report.error is None
    found = report.findings[0]
    if found.new is None:
        assert found.reason
        return
    assert losses_of(report) == []
    logger = Recorder()
    asked = run(found.new, logger=logger)
    assert asked == run(code, print=lambda *a, **k: None)
    ((message, fields),) = logger.calls
    assert list(shown_values(fields)) == asked
    assert message.strip() == message != ""
    assert "\0" not in message


ENDS = st.sampled_from(["", ", end=' '", ", end=''", ", end='\\n\\n'"])
LINES = st.builds(
    lambda word, end: [f"print({word!r}{end})"], st.sampled_from(["a b", "", "--"]), ENDS
)


FAIL = ["if next(go):", "    raise OSError"]
LEAVE = ["if next(go):"]


def indented(head: str) -> Callable[[list[str]], list[str]]:
    return lambda block: [head, *(f"    {line}" for line in block)]


@st.composite
def blocks(draw: st.DrawFn, depth: int = 2) -> list[str]:
    """Write statements: prints that share lines, in branches and loops."""
    simple = [LINES, st.just(["pass"])]
    if depth:
        inner = blocks(depth - 1)
        simple += [
            inner.map(indented("for i in range(2):")),
            inner.map(indented("while next(go):")),
            inner.map(indented("with a:")),
            st.tuples(inner, inner).map(
                lambda two: indented("if next(go):")(two[0]) + indented("else:")(two[1])
            ),
            inner.map(lambda block: [*indented("try:")(block), "finally:", "    print('c d')"]),
            st.tuples(inner, inner, inner).map(
                lambda three: (
                    indented("try:")([*three[0], *FAIL, *three[0]])
                    + indented("except OSError:")(three[1])
                    + indented("else:")(three[2])
                )
            ),
            st.tuples(inner, inner, st.sampled_from(["break", "continue"])).map(
                lambda it: indented("while next(go):")([*it[0], *LEAVE, f"    {it[2]}", *it[1]])
            ),
            inner.map(indented("if next(go):")),
        ]
    found = draw(st.lists(st.one_of(*simple), min_size=1, max_size=4))
    return [line for lines in found for line in lines]


def shown_by(code: str, choices: list[bool]) -> tuple[str, list[str]]:
    """Run code and return what it printed, and its messages; no message may break into a line."""
    output: list[str] = []

    def show(*texts: str, end: str = "\n") -> None:
        output.append(" ".join(texts) + end)

    class Log(Recorder):
        def __getattr__(self, level: str) -> Callable[..., None]:
            assert "".join(output)[-1:] in ("", "\n")
            return super().__getattr__(level)

    logger = Log()
    names = {"print": show, "a": contextlib.nullcontext(), "zz_logger": logger}
    with contextlib.suppress(StopIteration):
        exec(compile(code, "code", "exec"), {**names, "go": iter(choices)})
    return "".join(output), [message for message, _ in logger.calls]


@settings(max_examples=100 if CI else 10)
@given(blocks(), st.lists(st.booleans(), max_size=12))
def test_a_message_never_breaks_into_a_line(block: list[str], choices: list[bool]) -> None:
    """Whatever the flow of control; and no word goes."""
    code = "\n".join(block) + "\n"
    report = migrate_source(code, OPTIONS)
    assert report.error is None
    lines = [line for line in report.result.split("\n") if "StructuredLogger" not in line]
    output, messages = shown_by("\n".join(lines), choices)
    words = re.findall(r"\w", shown_by(code, choices)[0])
    assert len(re.findall(r"\w", output + " ".join(messages))) >= len(words)


@given(WORD)
def test_a_text_without_values_keeps_its_words(text: str) -> None:
    found = migrate_source(f"print({text!r})").findings[0]
    if found.new is None:
        assert "decoration" in (found.reason or "") or "several lines" in (found.reason or "")
        return
    logger = Recorder()
    run(found.new, logger=logger)
    message, fields = logger.calls[0]
    assert fields == {}
    assert re.findall(r"\w+", message) == re.findall(r"\w+", text)


def test_the_mask_of_these_tests_sees_a_change() -> None:
    report = migrate_source("x = 1\nprint('a')\n", OPTIONS)
    changed = report.result.replace("x = 1", "x = 2")
    assert masked("x = 1\nprint('a')\n", report) == masked(report.result, None)
    assert masked("x = 1\nprint('a')\n", report) != masked(changed, None)
