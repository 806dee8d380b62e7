"""What a program says where its main block has not set up logging is not converted in silence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from foundry_fastlog.migrate import Options, migrate_source

# Programs of which parts run where the main block has not set up logging; what they print shows
# before and after. A line that must stay has a mark.
UNREACHED = {
    "called before": """
        def helper():
            print("from a helper")  # stays

        def load():
            print("loading data")  # stays
            helper()

        load()
    """,
    "a decorator": """
        def deco(function):
            print("decorating", function.__name__)  # stays

            def wrapper():
                print("wrapped")

            return wrapper

        @deco
        def work():
            print("works")
    """,
    "an object": """
        class Timer:
            def __init__(self):
                print("a timer")  # stays

            def __enter__(self):
                print("enters")  # stays
                return self

            def __exit__(self, *_):
                self.stop()

            def stop(self):
                print("stops")  # stays

            def later(self):
                print("later")

        with Timer():
            pass
    """,
    "a decorated class": """
        def note(kind):
            print("notes", kind.__name__)  # stays
            return kind

        @note
        class Model:
            def fit(self):
                print("fits")  # stays

            def __repr__(self):
                return "Model"

        later = lambda: helper()

        def helper():
            print("helps")

        Model().fit()
    """,
    "an assignment": """
        def parse():
            print("parsing")  # stays
            return 1

        value = parse()
    """,
    "workers": """
        import multiprocessing as mp

        def shown(i):
            print("shows", i)  # stays

        def work(i):
            print("works on", i)  # stays
            shown(i)

        class Job:
            def run(self):
                print("runs")  # stays

        def start():
            mp.get_context("spawn").Process(target=Job().run)
            process = mp.get_context("spawn").Process(target=work, args=(1,))
            process.start()
            process.join()
            print("has ended")
    """,
}


@pytest.mark.parametrize("name", UNREACHED)
def test_what_the_main_block_does_not_reach_stays(tmp_path: Path, name: str) -> None:
    head = textwrap.dedent(UNREACHED[name])
    call = "start()" if "def start" in head else "work()" if "def work" in head else "pass"
    source = f'{head}\n\nif __name__ == "__main__":\n    print("main starts")\n    {call}\n'
    report = migrate_source(source, path=str(tmp_path / "program.py"))
    lines = source.splitlines()
    stay = [number for number, line in enumerate(lines, 1) if "# stays" in line]
    kept = {finding.line: finding for finding in report.findings if finding.status == "left"}
    assert sorted(kept) == stay
    reason = "runs in a worker process" if name == "workers" else "runs before the main block"
    assert all((finding.reason or "").startswith(reason) for finding in kept.values())
    script = tmp_path / "program.py"
    said = []
    for text in (source, report.result):
        script.write_text(text)
        command = [sys.executable, str(script)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        said.append(done.stdout + done.stderr)
    words = [word for line in lines for word in re.findall(r'print\("([^"]+)"', line)]
    shown = [word for word in words if word in said[0]]
    assert shown
    assert [word for word in shown if word not in said[1]] == []
    for choice in ("never", "always"):
        findings = migrate_source(source, Options(set_up=choice)).findings
        assert not any(finding.reason for finding in findings)


REDIRECTED = """
import contextlib
import io
from contextlib import ExitStack, redirect_stdout
from contextlib import redirect_stderr as taken


def describe(model):
    print("a model of", model)  # stays


def enter():
    print("enters")  # stays
    return io.StringIO()


def given():
    print("is given")  # stays


def report():
    print("reports")


def captured():
    text = io.StringIO()
    with open("x.txt", "w") as file, redirect_stdout(text), enter():
        describe("three layers")
        print("and more")  # stays
        (lambda one: one())(given)
    print("captured")
    return text.getvalue()


def on_a_stack():
    text = io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(text))
        print("stacked")  # stays
    return text.getvalue()


def by_name():
    text = io.StringIO()
    takes = taken(text)
    with takes:
        print("named")  # stays


if __name__ == "__main__":
    report()
    by_name()
    assert captured() == "enters\\na model of three layers\\nand more\\nis given\\n"
    assert on_a_stack() == "stacked\\n"
"""


def test_what_the_program_takes_from_its_own_output_stays(tmp_path: Path) -> None:
    source = REDIRECTED.replace("\\\n", "\n")
    report = migrate_source(source)
    kept = [finding.line for finding in report.findings if finding.status == "left"]
    assert kept == [n for n, line in enumerate(source.splitlines(), 1) if "# stays" in line]
    reasons = {f.reason for f in report.findings if f.reason}
    assert reasons == {
        "where redirect_stdout or redirect_stderr takes the text",
        *(
            f"in {name}(), called where redirect_stdout takes the text"
            for name in ("describe", "enter", "given")
        ),
    }
    for text in (source, report.result):
        script = tmp_path / "program.py"
        script.write_text(text)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, check=True)


def test_threads_have_the_programs_logging() -> None:
    source = textwrap.dedent(
        """
        import multiprocessing
        from concurrent.futures import ThreadPoolExecutor
        from multiprocessing.pool import ThreadPool

        def work(i):
            print("works on", i)

        if __name__ == "__main__":
            ThreadPoolExecutor(initializer=work)
        """
    )
    assert [finding.status for finding in migrate_source(source).findings] == ["convert"]
    alone = source.replace("import multiprocessing\n", "").replace("ThreadPool", "Pool")
    assert [f.status for f in migrate_source(alone.replace("Pool", "x")).findings] == ["convert"]


def test_loggers_of_other_names_are_set_up_too() -> None:
    source = textwrap.dedent(
        """
        from foundry_fastlog import StructuredLogger

        class Trainer:
            logger = StructuredLogger("trainer.loop")

            def fit(self):
                print("fit starts")

        if __name__ == "__main__":
            print("main starts")
            Trainer().fit()
        """
    )
    report = migrate_source(source, path="program.py")
    assert '    setup_logging(__name__, experiment="program")\n' in report.result
    assert '    setup_logging("trainer", experiment="program")\n' in report.result
    alone = source.replace('    print("main starts")\n', "")
    assert migrate_source(alone, path="program.py").set_up == (
        'setup_logging("trainer", experiment="program")'
    )
    one_line = source.partition("if __name__")[0] + 'if __name__ == "__main__": print("main")\n'
    report = migrate_source(one_line, path="program.py")
    assert report.result.count("setup_logging(") == 2
    given = source.replace(
        "class Trainer", 'setup_logging("trainer", experiment="x")\n\nclass Trainer'
    )
    assert migrate_source(given, path="program.py").set_up == ""
    compile(report.result, "program.py", "exec")
