"""What a module gets beside its calls: a logger, where it needs one, and nothing else."""

from __future__ import annotations

import textwrap

import pytest

from foundry_fastlog.migrate import FileReport, Options, migrate_source

DEFINITION = "from foundry_fastlog import StructuredLogger\n\nlogger = StructuredLogger(__name__)\n"


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
    """Return why prints stay."""
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
    """Import and logger come after the imports at the top of a module."""
    gap = "" if after.startswith("\n") else "\n"
    assert result(f'{before}{after}def f():\n    print("a")\n') == (
        f'{before}{DEFINITION}{gap}{after}def f():\n    logger.info("a")\n'
    )


@pytest.mark.parametrize(
    "before", ['"""Doc."""\n', "from __future__ import annotations\n", "'a' 'b'\n"]
)
def test_docstrings_and_future_imports_stay_first(before: str) -> None:
    """What must come first in a module is followed by a blank line and the logger."""
    assert result(f'{before}\nprint("a")\n') == (f'{before}\n{DEFINITION}\nlogger.info("a")\n')


def test_the_logger_precedes_the_first_print_that_runs() -> None:
    """A print among the imports, or a call of what prints, must find the logger."""
    assert result(
        """
        import a
        try:
            import b
        except ImportError:
            print("no b")
        import c
        """
    ) == textwrap.dedent(
        f"""
        import a
        {DEFINITION.replace(chr(10), chr(10) + "        ")}
        try:
            import b
        except ImportError:
            logger.info("no b")
        import c
        """
    ).replace("        \n", "\n")


def test_the_logger_precedes_calls_of_what_prints() -> None:
    """A function that is called between imports may print."""
    code = "import a\n@register\ndef f():\n    print('a')\n"
    assert result(f"import x\n{code}").startswith(f"import x\nimport a\n{DEFINITION}")
    code = "class A:\n    def go(self): print('a')\n"
    assert result(f"import x\nA().go()\n{code}").startswith(f"import x\n{DEFINITION}")


def test_a_docstring_that_shares_its_line_with_a_print_is_refused() -> None:
    """There is no place for a logger between the two."""
    assert reasons('"doc"; print("a")') == ["shares its line with what must stay first in a module"]


def test_a_form_feed_ends_no_line() -> None:
    """Old sources have them between sections: places below are still right."""
    assert result('import a\n\f\nif x:\n  print("b", y_, z_)\n', line_length=1) == (
        f"import a\n{DEFINITION}\n\f\nif x:\n  logger.info(\n"
        '    "b",\n    y_=y_,\n    z_=z_,\n  )\n'
    ).replace("\n\n\f", "\n\f").replace("y_=y_", "y=y_").replace("z_=z_", "z=z_")


def test_line_ends_and_a_missing_last_one_are_kept() -> None:
    """New lines end as the file's do."""
    assert result('import a\r\nprint("a")') == (
        DEFINITION.replace("\n", "\r\n").join(["import a\r\n", '\r\nlogger.info("a")'])
    )


def test_all_else_stays_as_it_is() -> None:
    """Comments, odd spacing and other statements on the line are the same bytes."""
    code = (
        "import a\nlogger = a.StructuredLogger( 'x' )  # mine\nif  a :print( 'b' ) ;x=1   # c\n\f\n"
    )
    assert result(code) == code.replace("print( 'b' )", 'logger.info("b")')


def test_a_last_import_without_a_line_end_gets_one() -> None:
    """The logger's lines are lines of their own."""
    assert result("if a:\n    def f(): print('b')\nimport c") == (
        f'if a:\n    def f(): logger.info("b")\nimport c\n{DEFINITION}'
    )


def test_the_name_of_a_builtin_is_no_logger() -> None:
    """A logger's name that Python knows already would be found where none is."""
    assert "not simply one object" in migrate("print('a')", logger="input").findings[0].reason


def test_a_report_says_what_is_added() -> None:
    """The listing can show the new lines and their place."""
    report = migrate('import a\nprint("b")\n')
    assert report.added == DEFINITION.splitlines()
    assert report.added_at == 2
    assert report.to_dict()["prints"] == [
        {
            "line": 2,
            "column": 0,
            "status": "convert",
            "level": "info",
            "old": 'print("b")',
            "new": 'logger.info("b")',
        }
    ]


# ---- loggers that are there --------------------------------------------------------------


@pytest.mark.parametrize(
    "definition",
    [
        "from foundry_fastlog import StructuredLogger\nlogger = StructuredLogger('a')",
        "import foundry_fastlog as f\nlogger: object = f.StructuredLogger('a')",
        "from mine import StructuredLogger as S\nlogger = S('a', config)",
        "import structlog\nlogger = structlog.get_logger()",
        "from mine import StructuredLogger, make\nlogger: StructuredLogger = make()",
        "from mine import make\nlogger: 'StructuredLogger' = make()",
    ],
)
def test_a_structured_logger_of_the_module_is_used(definition: str) -> None:
    """A logger that takes fields is used as it is."""
    code = f"{definition}\ndef f(x1):\n    print('a', x1)\n"
    assert result(code) == code.replace("print('a', x1)", 'logger.info("see", x1=x1)').replace(
        '"see"', '"x1"'
    )


def test_an_import_that_is_there_is_used() -> None:
    """The class is not imported twice."""
    code = "from foundry_fastlog import StructuredLogger\nprint('b')\n"
    assert result(code) == f'{DEFINITION}\nlogger.info("b")\n'


@pytest.mark.parametrize(
    "code",
    [
        "class StructuredLogger: ...\nprint('b')",
        "from mine import StructuredLogger\nprint('b')",
        "print('b')\nfrom foundry_fastlog import StructuredLogger",
        "def f():\n    global StructuredLogger\n    StructuredLogger = 1\nprint('b')",
    ],
)
def test_another_class_of_that_name_is_no_logger(code: str) -> None:
    """Where the class's name means something else, or comes too late, the prints stay."""
    report = migrate(code)
    assert report.result == textwrap.dedent(code)
    assert "StructuredLogger is not foundry_fastlog's here" in (report.findings[0].reason or "")


@pytest.mark.parametrize(
    "definition",
    [
        "import logging\nlogger = logging.getLogger(__name__)",
        "from logging import getLogger as g\nlogger = g()",
        "from mine.logging_utils import setup_logging\nlogger = setup_logging('a')",
        "import logging\nfrom mine import make\nlogger: logging.Logger = make()",
    ],
)
def test_a_standard_logger_gets_messages_without_fields(definition: str) -> None:
    """A logging.Logger would raise TypeError for fields, so only plain messages go there."""
    code = f"{definition}\nprint('plain text')\nprint('size', n)\n"
    assert result(code) == code.replace("print('plain text')", 'logger.info("plain text")')
    assert "takes no fields" in reasons(code)[1]


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
    code = f"{definition}\nprint('a b')\n"
    assert len(reasons(code)) == 1
    assert "logger" in reasons(code)[0]
    if not definition.startswith("with"):
        assert result(code, assume_structured=True) == code.replace(
            "print('a b')", 'logger.info("a b")'
        )


def test_another_name_can_be_chosen() -> None:
    """--logger gives the module a second logger beside one that cannot be used."""
    code = "import logging\nlogger = logging.getLogger()\nprint('size', n)\n"
    assert 'log.info("size", size=n)' in result(code, logger="log")
    assert "log = StructuredLogger(__name__)" in result(code, logger="log")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('a')\n{0}", "may run before logger is defined in line 3"),
        ("def f():\n    print('a')\nf()\n{0}", "may run before logger is defined in line 5"),
        ("{0}\nlogger = None\nprint('a')", "not simply one object"),
        ("if a:\n    {0}\nprint('a')", "not simply one object"),
        ("def f():\n    logger = make()\n    print('a')", "not simply one object"),
        ("def f():\n    global logger\n    {0}\nprint('a')", "not simply one object"),
        ("def f(logger):\n    print('a')", "cannot be seen"),
        ("def logger(): ...\nprint('a')", "not simply one object"),
    ],
)
def test_a_logger_that_may_not_be_there_is_not_used(code: str, reason: str) -> None:
    """Before it is defined, or where it is not sure what it is, a logger is no help."""
    code = code.format("logger = structlog.get_logger()")
    found = migrate("import structlog\n" + code)
    assert found.result == "import structlog\n" + code
    assert reason in (found.findings[-1].reason or "")


def test_a_function_may_use_a_logger_that_is_defined_below_it() -> None:
    """It runs after the module is loaded."""
    code = "import structlog\ndef f():\n    print('a')\nlogger = structlog.get_logger()\n"
    assert 'logger.info("a")' in result(code)


def test_an_annotated_parameter_is_a_logger() -> None:
    """A parameter says what it is by its annotation."""
    code = "from x import StructuredLogger\ndef f(logger: StructuredLogger):\n    print('a b')\n"
    assert result(code) == code.replace("print('a b')", 'logger.info("a b")')


# ---- loggers in self ---------------------------------------------------------------------

INIT = "    def __init__(self, x, logger: StructuredLogger):\n        {}\n"
MADE = "self.logger = StructuredLogger('a')"


def in_class(body: str, bases: str = "") -> str:
    """Return a class with a logger, made of a few methods."""
    head = "import structlog, threading, socketserver, logging\nfrom typing import Generic\n"
    return f"{head}from foundry_fastlog import StructuredLogger\nclass A{bases}:\n{body}"


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
    """Where an object is sure to have a logger, its methods use it."""
    code = in_class(f"{body}    def f(self):\n        print('x y')\n", bases)
    assert result(code) == code.replace("print('x y')", 'self.logger.info("x y")')


def test_a_nested_function_uses_the_logger_of_the_object_around() -> None:
    """The object is reached by whatever name the method gives it."""
    code = in_class(
        INIT.format(MADE) + "    def f(me, /):\n        def g():\n            print('x y')\n"
    )
    assert 'me.logger.info("x y")' in result(code)


@pytest.mark.parametrize(
    "method",
    [
        "    def __del__(self):\n        print('x y')\n",
        "    @staticmethod\n    def f(self):\n        print('x y')\n",
        "    @classmethod\n    def f(cls):\n        print('x y')\n",
        "    def f():\n        print('x y')\n",
        "    def f(self):\n        self = None\n        print('x y')\n",
        "    def f(self):\n        class B:\n            def g(b): print('x y')\n",
        "    print('x y')\n",
    ],
)
def test_a_place_without_the_object_uses_the_logger_of_the_module(method: str) -> None:
    """Static methods, finalisers and other classes have no self.logger."""
    assert ' logger.info("x y")' in result(in_class(INIT.format(MADE) + method))


@pytest.mark.parametrize(
    ("first", "bases"),
    [
        ("self.f()", ""),
        ("go(self)", ""),
        ("self.size = 1", ""),
        ("super().__init__()", "(socketserver.BaseRequestHandler)"),
        ("super().__init__()", "(make())"),
        ("if x: return", ""),
    ],
)
def test_a_logger_that_may_come_too_late_is_not_used(first: str, bases: str) -> None:
    """Where a method may run before self.logger is set, the module's logger is safe."""
    body = (
        INIT.format(f"{first}\n        {MADE}") + "    @size.setter\n    def size(self, x): ...\n"
    )
    if first.startswith("if"):
        body = INIT.format(f"if x:\n            {MADE}")
    code = in_class(f"{body}    def f(self):\n        print('x y')\n", bases)
    assert '        logger.info("x y")' in result(code)


def test_in_init_the_logger_is_used_once_it_is_made() -> None:
    """Before that, the module's logger is."""
    code = in_class(INIT.format(f"print('one two'); {MADE}; print('three four')"))
    new = result(code)
    assert '; self.logger.info("three four")' in new
    assert '        logger.info("one two"); ' in new


@pytest.mark.parametrize(
    ("maker", "kind"),
    [("logging.getLogger()", "a logging.Logger"), ("make()", "of a kind that cannot be seen")],
)
def test_another_kind_of_logger_in_self_is_passed_by_with_a_note(maker: str, kind: str) -> None:
    """The module's logger takes its place, and the listing says why."""
    code = in_class(INIT.format(f"self.logger = {maker}") + "    def f(self): print('see', x1)\n")
    report = migrate(code)
    assert ': logger.info("see", x1=x1)' in report.result
    assert report.findings[0].note == (
        f"self.logger (line 6) is {kind}, so the module's logger is used"
    )
    trusted = migrate(code, assume_structured=True).result
    assert (': self.logger.info("see"' in trusted) == (maker == "make()")


@pytest.mark.parametrize(
    ("body", "used"),
    [
        ("    def f(self):\n        print('x y')\n", True),
        ("    def __init__(self):\n        super().__init__(1)\n        print('x y')\n", True),
        ("    def __init__(self):\n        print('x y')\n        super().__init__(1)\n", False),
        ("    def __init__(self): ...\n    def f(self):\n        print('x y')\n", False),
        (
            (
                "    def __init__(self):\n        self.f()\n        super().__init__(1)\n"
                "    def f(self):\n        print('x y')\n"
            ),
            False,
        ),
    ],
)
def test_a_logger_of_a_base_class_is_inherited(body: str, used: bool) -> None:
    """A subclass in the same module has its base's logger once the base's __init__ has run."""
    new = result(in_class(INIT.format(MADE)) + f"class B(A, Other):\n{body}")
    assert ('self.logger.info("x y")' in new) is used
    assert 'logger.info("x y")' in new


def test_a_logger_of_a_second_base_class_is_not_relied_upon() -> None:
    """The first base's __init__ need not call the second one's."""
    body = "    def f(self):\n        print('x y')\n"
    new = result(in_class(INIT.format(MADE)) + f"class B(Other, A):\n{body}")
    assert '        logger.info("x y")' in new


def test_class_loggers_are_inherited_and_circles_end() -> None:
    """A class attribute is always there; a class that inherits from itself is no trap."""
    code = in_class("    logger = StructuredLogger('a')\n")
    code += "class B(A):\n    def __init__(self):\n        print('x y')\n"
    assert 'self.logger.info("x y")' in result(code)
    for base in ("A", "a.B"):
        code = f"class A({base}):\n    def f(self):\n        print('x y')\n"
        assert '        logger.info("x y")' in result(code)
    assert 'logger.info("x y")' in result(
        in_class(f"    def make(self):\n        {MADE}\n        print('x y')\n")
    )


# ---- what shows nothing ------------------------------------------------------------------


def test_empty_prints_can_be_dropped() -> None:
    """--drop-empty removes them with their lines; a block that would be empty gets pass."""
    assert result(
        """\
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
        """,
        drop_empty=True,
    ) == textwrap.dedent(
        """\
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
    )


def test_dropping_leaves_prints_whose_value_is_used() -> None:
    """An expression is no statement, whatever it shows."""
    assert reasons("x = [print() for a in b]", drop_empty=True) == ["its value is used"]


# ---- sources that cannot be migrated -----------------------------------------------------


def test_a_source_that_would_not_come_back_whole_is_refused() -> None:
    """LibCST loses a space or a mark here and there: such a source is not touched."""
    report = migrate_source('\ufeffprint("a")')
    assert report.error == "is not given back unchanged by LibCST: see line 1"
    assert report.result == report.source


def test_python_2_is_refused() -> None:
    """A print statement is no Python 3: the report says so, and where."""
    report = migrate_source("x = 1\nprint 'a'\n")
    assert report.error is not None
    assert "no valid Python: see line 2" in report.error
    assert report.result == "x = 1\nprint 'a'\n"


def test_deep_nesting_is_an_error_of_the_file() -> None:
    """A tree that is too deep to walk is reported, and no crash."""
    report = migrate_source("print(" + "-" * 3000 + "1)")
    assert report.error is not None
    assert report.findings == []


def test_unknown_escapes_do_not_warn() -> None:
    """A file's own warnings are its own: looking at it raises none."""
    assert 'logger.info("\\\\d")' in migrate_source(r'print("\d")').result
    assert 'logger.info("\\\\d x", x1=x1)' in migrate_source(r'print(f"\d x {x1}")').result


def test_a_source_without_prints_is_not_parsed() -> None:
    """Most files have none; they cost a search."""
    assert migrate_source("this is no Python, and says nothing").error is None
