"""What a module gets beside its calls: a logger, where it needs one, and nothing else."""

from __future__ import annotations

import re
import textwrap

import pytest

from foundry_fastlog.migrate import FileReport, Options, migrate_source

DEFINITION = "from foundry_fastlog import StructuredLogger\n\nlogger = StructuredLogger(__name__)\n"
PRINT = "print('x y')"


def migrate(code: str, **options: object) -> FileReport:
    """Migrate a source that may be indented as this file is."""
    if "\f" not in code:  # which dedent() takes for what may go, from Python 3.14 on
        code = textwrap.dedent(code)
    report = migrate_source(code, Options(**options))  # type: ignore[arg-type]
    assert report.error is None
    return report


def result(code: str, **options: object) -> str:
    """Return a source after the migration, which must change nothing when it is repeated."""
    new = migrate(code, **options).result
    again = migrate_source(new, Options(**options))  # type: ignore[arg-type]
    assert again.result == new
    assert again.count("convert") == 0
    return new


def reasons(code: str, **options: object) -> list[str]:
    return [found.reason or "" for found in migrate(code, **options).findings]


# ---- where the logger goes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n", ""),
        ("# License\n", "\n"),
        ("import os\n", ""),
        ('"""Doc."""\nimport os\n', ""),
        ("import os\nimport sys  # why\n", "\n"),
        ("try:\n    import a\nexcept ImportError:\n    a = None\n", "\n"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n", "\nx = 1\n"),
        ("import os\nos.environ['A'] = '1'\nimport a\n", "\n"),
        ("from __future__ import annotations\nimport os\n", ""),
    ],
)
def test_the_logger_follows_the_imports(before: str, after: str) -> None:
    gap = "" if after.startswith("\n") else "\n"
    assert result(f'{before}{after}def f():\n    print("a")\n') == (
        f'{before}{DEFINITION}{gap}{after}def f():\n    logger.info("a")\n'
    )


WHOLE = {
    "a docstring": ('"""Doc."""\n\nprint("a")\n', '"""Doc."""\n\n{}\nlogger.info("a")\n'),
    "a future import": (
        'from __future__ import annotations\n\nprint("a")\n',
        'from __future__ import annotations\n\n{}\nlogger.info("a")\n',
    ),
    "two texts": ("'a' 'b'\n\nprint(\"a\")\n", "'a' 'b'\n\n{}\nlogger.info(\"a\")\n"),
    "a print among imports": (
        "import a\ntry:\n    import b\nexcept E:\n    print('no b')\nimport c\n",
        'import a\n{}\ntry:\n    import b\nexcept E:\n    logger.info("no b")\nimport c\n',
    ),
    "a decorator may call": (
        "import x\nimport a\n@register\ndef f():\n    print('a')\n",
        'import x\nimport a\n{}\n@register\ndef f():\n    logger.info("a")\n',
    ),
    "a method is called": (
        "import x\nA().go()\nclass A:\n    def go(self): print('a')\n",
        'import x\n{}\nA().go()\nclass A:\n    def go(self): logger.info("a")\n',
    ),
    "the class is there": (
        "from foundry_fastlog import StructuredLogger\nprint('b')\n",
        '{}\nlogger.info("b")\n',
    ),
    "a form feed": (
        'import a\n\f\nif x:\n  print("b", y_, z_)\n',
        'import a\n{}\f\nif x:\n  logger.info(\n    "b",\n    y=y_,\n    z=z_,\n  )\n',
    ),
    "line ends and a missing last one": (
        'import a\r\nprint("a")',
        'import a\r\n{}\r\nlogger.info("a")',
    ),
    "an import without a line end": (
        "if a:\n    def f(): print('b')\nimport c",
        'if a:\n    def f(): logger.info("b")\nimport c\n{}',
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_the_logger_precedes_the_first_print_that_runs(case: str) -> None:
    """It follows what must stay first; its lines are lines of their own, with the file's ends."""
    before, after = WHOLE[case]
    definition = DEFINITION.replace("\n", "\r\n") if "\r" in before else DEFINITION
    options = {"line_length": 1} if "\f" in before else {}
    assert result(before, **options) == after.replace("{}", definition)


def test_a_report_says_what_is_added() -> None:
    report = migrate('import a\nprint("b")\n')
    assert (report.added, report.added_at) == (DEFINITION.splitlines(), 2)
    found = {"line": 2, "column": 0, "status": "convert", "level": "info"}
    assert report.to_dict()["prints"] == [{**found, "old": 'print("b")', "new": 'logger.info("b")'}]


# ---- loggers that are there --------------------------------------------------------------

INIT = "    def __init__(self, x, logger: StructuredLogger):\n        {}\n"
MADE = "self.logger = StructuredLogger('a')"
F = f"    def f(self):\n        {PRINT}\n"
FIELDS = [
    "from foundry_fastlog import StructuredLogger\nlogger = StructuredLogger('a')",
    "import foundry_fastlog as f\nlogger: object = f.StructuredLogger('a')",
    "from mine import StructuredLogger as S\nlogger = S('a', config)",
    "import structlog\nlogger = structlog.get_logger()",
    "from mine import StructuredLogger, make\nlogger: StructuredLogger = make()",
    "from mine import make\nlogger: 'StructuredLogger' = make()",
]
NO_FIELDS = [
    "import logging\nlogger = logging.getLogger(__name__)",
    "from logging import getLogger as g\nlogger = g()",
    "from mine.logging_utils import setup_logging\nlogger = setup_logging('a')",
    "import logging\nfrom mine import make\nlogger: logging.Logger = make()",
]


def in_class(body: str, bases: str = "") -> str:
    head = "import structlog, threading, socketserver, logging\nfrom typing import Generic\n"
    return f"{head}from foundry_fastlog import StructuredLogger\nclass A{bases}:\n{body}"


MADE_IN_A = in_class(INIT.format(MADE))


@pytest.mark.parametrize(
    "code",
    [
        *(f"{definition}\ndef f(x1):\n    {PRINT}\n" for definition in FIELDS + NO_FIELDS),
        # A function runs after the module is loaded.
        f"import structlog\ndef f():\n    {PRINT}\nlogger = structlog.get_logger()\n",
        f"from x import StructuredLogger\ndef f(logger: StructuredLogger):\n    {PRINT}\n",
        # All else stays as it is: comments, odd spacing and other statements on the line.
        f"import a\nlogger = a.StructuredLogger( 'x' )  # mine\nif  a :{PRINT} ;x=1   # c\n\f\n",
    ],
)
def test_a_logger_of_the_module_is_used(code: str) -> None:
    assert result(code) == code.replace(PRINT, 'logger.info("x y")')


@pytest.mark.parametrize(
    ("definition", "fields"), [(d, True) for d in FIELDS] + [(d, False) for d in NO_FIELDS]
)
def test_a_standard_logger_gets_messages_without_fields(definition: str, fields: bool) -> None:
    """A logging.Logger would raise TypeError for fields, so only plain messages go there."""
    code = f"{definition}\nprint('plain text')\nprint('size', x1)\n"
    new = code.replace("print('plain text')", 'logger.info("plain text")')
    assert result(code) == (
        new.replace("print('size', x1)", 'logger.info("size", x1=x1)') if fields else new
    )
    assert ("takes no fields" in reasons(code)[1]) is not fields


def test_another_name_can_be_chosen() -> None:
    """--logger gives the module a second logger beside one that cannot be used."""
    new = result("import logging\nlogger = logging.getLogger()\nprint('size', n)\n", logger="log")
    assert 'log.info("size", size=n)' in new
    assert "log = StructuredLogger(__name__)" in new


GET = "logger = structlog.get_logger()"
TAKEN = "StructuredLogger is not foundry_fastlog's here"
MANY = "not a single object"
LATE = "may run before logger is defined on line"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f"{PRINT}\n{GET}", f"{LATE} 3"),
        (f"def f():\n    {PRINT}\nf()\n{GET}", f"{LATE} 5"),
        (f"{GET}\nlogger = None\n{PRINT}", MANY),
        (f"if a:\n    {GET}\n{PRINT}", MANY),
        (f"def f():\n    logger = make()\n    {PRINT}", MANY),
        (f"def f():\n    global logger\n    {GET}\n{PRINT}", MANY),
        (f"def f(logger):\n    {PRINT}", "is unknown here"),
        (f"def logger(): ...\n{PRINT}", MANY),
        # Where the class's name means something else, or comes too late.
        (f"class StructuredLogger: ...\n{PRINT}", TAKEN),
        (f"from mine import StructuredLogger\n{PRINT}", TAKEN),
        (f"{PRINT}\nfrom foundry_fastlog import StructuredLogger", TAKEN),
        (f"def f():\n    global StructuredLogger\n    StructuredLogger = 1\n{PRINT}", TAKEN),
    ],
)
def test_a_logger_that_may_not_be_there_is_not_used(code: str, reason: str) -> None:
    """Before it is defined, or where it is not sure what it is, a logger is no help."""
    found = migrate(code := f"import structlog\n{code}")
    assert found.result == code
    assert reason in (found.findings[-1].reason or "")


@pytest.mark.parametrize(
    "definition",
    [
        "from mine import logger",
        "import logger",
        "logger = make()",
        "logger, b = c",
        "logger = x[0]",
        "logger = name",
        "with a as logger: ...",
    ],
)
def test_a_logger_of_unknown_kind_is_not_used_unasked(definition: str) -> None:
    """What cannot be seen may take no fields; the user can vouch for it."""
    code = f"{definition}\n{PRINT}\n"
    (reason,) = reasons(code)
    assert "logger" in reason
    if not definition.startswith("with"):
        new = result(code, assume_structured=True)
        assert new == code.replace(PRINT, 'logger.info("x y")')


def test_places_without_a_logger() -> None:
    """A name that Python knows would be found where none is; a docstring may share its line."""
    assert MANY in reasons(PRINT, logger="input")[0]
    assert reasons(f'"doc"; {PRINT}') == ["shares its line with a statement that must stay first"]


# ---- loggers in self ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "bases"),
    [
        (INIT.format(MADE), ""),
        (INIT.format("self.logger = logger"), ""),
        (INIT.format("self.x = x; self.logger: StructuredLogger = make()"), ""),
        (INIT.format("self.x = x; self.logger: object = StructuredLogger('a')"), ""),
        ("    x: int\n    logger: object = StructuredLogger('a')\n", "(make())"),
        (INIT.format(f"super().__init__(); {MADE}"), "(threading.Thread)"),
        (INIT.format(f"super().__init__(); {MADE}"), "(Generic[T], object)"),
        ("    logger = structlog.get_logger()\n", "(Unknown)"),
        ("    @property\n    def logger(self) -> StructuredLogger: ...\n", ""),
    ],
)
def test_a_method_uses_the_logger_of_its_object(body: str, bases: str) -> None:
    code = in_class(body + F, bases)
    assert result(code) == code.replace(PRINT, 'self.logger.info("x y")')


def of_self(code: str) -> bool:
    """Tell whose logger a converted print uses: that of the object, or of the module."""
    found = re.findall(r'([\w.]*)logger\.info\("x y"\)', result(code))
    assert found in ([""], ["self."]), found
    return found == ["self."]


SUPER = "super().__init__(1)"


@pytest.mark.parametrize(
    ("body", "used"),
    [
        (F, True),
        (f"    def __init__(self):\n        {SUPER}\n        {PRINT}\n", True),
        (f"    def __init__(self):\n        {PRINT}\n        {SUPER}\n", False),
        (f"    def __init__(self): ...\n{F}", False),
        (f"    def __init__(self):\n        self.f()\n        {SUPER}\n{F}", False),
    ],
)
def test_a_logger_of_a_base_class_is_inherited(body: str, used: bool) -> None:
    """A subclass in the same module has its base's logger once the base's __init__ has run."""
    assert of_self(f"{MADE_IN_A}class B(A, Other):\n{body}") is used


def test_classes_and_their_bases() -> None:
    """A class attribute is always there; a class that inherits from itself is no trap."""
    code = in_class("    logger = StructuredLogger('a')\n")
    assert of_self(f"{code}class B(A):\n    def __init__(self):\n        {PRINT}\n")
    assert not of_self(in_class(f"    def make(self):\n        {MADE}\n        {PRINT}\n"))
    # The first base's __init__ need not call the second one's.
    assert not of_self(f"{MADE_IN_A}class B(Other, A):\n{F}")
    for base in ("A", "a.B"):
        assert not of_self(f"class A({base}):\n{F}")
    # The object is reached by whatever name the method gives it.
    nested = f"    def f(me, /):\n        def g():\n            {PRINT}\n"
    assert 'me.logger.info("x y")' in result(MADE_IN_A + nested)


@pytest.mark.parametrize(
    "method",
    [
        f"    def __del__(self):\n        {PRINT}\n",
        f"    @staticmethod\n    def f(self):\n        {PRINT}\n",
        f"    @classmethod\n    def f(cls):\n        {PRINT}\n",
        f"    def f():\n        {PRINT}\n",
        f"    def f(self):\n        self = None\n        {PRINT}\n",
        f"    def f(self):\n        class B:\n            def g(b): {PRINT}\n",
        f"    {PRINT}\n",
    ],
)
def test_a_place_without_the_object_uses_the_logger_of_the_module(method: str) -> None:
    """Static methods, finalisers and other classes have no self.logger."""
    assert not of_self(MADE_IN_A + method)


@pytest.mark.parametrize(
    ("init", "bases"),
    [
        (f"self.f()\n        {MADE}", ""),
        (f"go(self)\n        {MADE}", ""),
        (f"self.size = 1\n        {MADE}", ""),
        (f"super().__init__()\n        {MADE}", "(socketserver.BaseRequestHandler)"),
        (f"super().__init__()\n        {MADE}", "(make())"),
        (f"if x:\n            {MADE}", ""),
    ],
)
def test_a_logger_that_may_come_too_late_is_not_used(init: str, bases: str) -> None:
    """Where a method may run before self.logger is set, the module's logger is safe."""
    setter = "    @size.setter\n    def size(self, x): ...\n"
    assert not of_self(in_class(INIT.format(init) + setter + F, bases))


def test_in_init_the_logger_is_used_once_it_is_made() -> None:
    new = result(in_class(INIT.format(f"print('one two'); {MADE}; print('three four')")))
    assert '; self.logger.info("three four")' in new
    assert '        logger.info("one two"); ' in new


@pytest.mark.parametrize(
    ("maker", "kind"),
    [("logging.getLogger()", "a logging.Logger"), ("make()", "of an unknown type")],
)
def test_another_kind_of_logger_in_self_is_passed_by_with_a_note(maker: str, kind: str) -> None:
    code = in_class(INIT.format(f"self.logger = {maker}") + "    def f(self): print('see', x1)\n")
    report = migrate(code)
    assert ': logger.info("see", x1=x1)' in report.result
    note = f"self.logger (line 6) is {kind}, so the module's logger is used"
    assert report.findings[0].note == note
    trusted = migrate(code, assume_structured=True).result
    assert (': self.logger.info("see"' in trusted) == (maker == "make()")


# ---- what shows nothing, and sources that cannot be migrated ------------------------------


def test_empty_prints_can_be_dropped() -> None:
    """--drop-empty removes them with their lines; a block that would be empty gets pass."""
    before = """\
        def f():
            print()
            # about x
            x = 1
            print("=" * 60)  # ruler
            print(); y = 2
        def g():
            if x: print()
            for a in b:
                print(
                )
                print("---")
        def h():
            print()
            "no docstring"
        """
    after = """\
        def f():
            # about x
            x = 1
            pass  # ruler
            pass; y = 2
        def g():
            if x: pass
            for a in b:
                pass
        def h():
            pass
            "no docstring"
        """
    assert result(before, drop_empty=True) == textwrap.dedent(after)
    # An expression is no statement, whatever it shows.
    assert reasons("x = [print() for a in b]", drop_empty=True) == ["its value is used"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        # LibCST loses a space or a mark here and there: such a source is not touched.
        ('\ufeffprint("a")', "is not reproduced unchanged by LibCST: see line 1"),
        ("x = 1\nprint 'a'\n", "is not valid Python: see line 2"),
        ("print(" + "-" * 3000 + "1)", ""),  # too deep to walk
    ],
    ids=["not the same", "Python 2", "deep"],
)
def test_a_source_that_cannot_be_migrated_is_named_and_left(source: str, error: str) -> None:
    report = migrate_source(source)
    assert report.error is not None
    assert error in ("", report.error)
    assert (report.result, report.findings) == (source, [])


def test_unknown_escapes_do_not_warn() -> None:
    """A file's own warnings are its own: looking at it raises none."""
    assert 'logger.info("\\\\d")' in migrate_source(r'print("\d")').result
    assert 'logger.info("\\\\d x", x1=x1)' in migrate_source(r'print(f"\d x {x1}")').result


def test_a_source_without_prints_is_not_parsed() -> None:
    """Most files have none; they cost a search."""
    assert migrate_source("this is no Python, and says nothing").error is None
