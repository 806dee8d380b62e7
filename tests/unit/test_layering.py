"""The rooms of the code base: who may include or import whom.

csrc/core knows nothing of Python, csrc/device and csrc/reader know only core, csrc/bindings knows
all; that none of them but bindings knows Python, the builds of tests/cpp and tests/sim show, which
have none. In Python a room imports only from rooms below it, and only extension.py, overlay.py and
scan.py import the extension.
"""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

from oracle import OracleWriter
from recorded import run_python

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "foundry_fastlog"
PREFIX = "foundry_fastlog."

# Which rooms of csrc each room may include from.
MAY_INCLUDE = {
    "core": {"core"},
    "device": {"core", "device"},
    "reader": {"core", "reader"},
    "bindings": {"core", "device", "reader", "bindings"},
}
# The rooms of the package, from the ground up: each imports only from those before it. A fleet is
# many runs that analysis has looked at and export writes; show draws what it comes to.
ROOMS = (
    *("base", "run", "reading", "recording", "machine", "config", "analysis", "export", "fleet"),
    *("importing", "show"),
    *("pages", "sinks", "messages", "components", "integrations", "migrate", "demo", "cli"),
)
FLAT = {"__init__", "__main__", "_version"}
# The trainer to learn from imports what a user would.
MAY_IMPORT_THE_PACKAGE = {"demo"}
# What must work where the extension was never built: a laptop that only reads runs.
READING_MODULES = (
    *("run.files", "reading.run", "reading.cursor", "reading.overlay", "reading.preview"),
    *("export.jsonl", "export.perfetto", "export.runs", "analysis.summarize"),
)
# Which files of csrc/core ask RunFiles, and what they must not ask the system itself.
THROUGH_RUN_FILES = (
    *("stream_files*", "batch_writer", "recovery", "dead_ring", "line_inventory", "ring_image"),
    *("ring_memory", "ring_view"),
    *("ring_home", "ring_pointer", "labels", "quarantine", "unfinished", "writer_mark"),
)
# Files of more than 400 lines, and why.
MAY_BE_LONG = {
    "foundry_fastlog/recording/recorder.py": "one public class, a third of it docstrings",
    "foundry_fastlog/sinks/wandb.py": "likewise",
    "foundry_fastlog/reading/run.py": "likewise, half of it",
    "foundry_fastlog/show/terminal.py": "a table for each part of a summary",
    "csrc/bindings/bind_record.cpp": "the ways in to one call, and their docstrings",
    "csrc/bindings/bind_timer.cpp": "a type of Python in C, and its docstrings",
    "csrc/core/line_renderer.cpp": "a line for each kind of record",
    "csrc/core/ring_memory.cpp": "the life of one mapping",
}
SYSTEM_CALL = re.compile(
    r"(?<!\w)::(?:open|openat|close|stat|lstat|fstat|fstatat|pread|pwrite|read|write|truncate|"
    r"ftruncate|fsync|fdatasync|fchmod|mkdir|rename|renameat|unlink|unlinkat|flock|opendir)\("
)
# What may be held below a signal handler of the same thread: locks that are only tried, and an
# event that its maker alone waits for; and a watch's, through which no message goes.
MAY_LOCK = {("device_tensors", "Lock"), ("text_writer", "Lock"), ("text_writer", "Event")}
MAY_LOCK |= {("watching", "Event")}


def include_faults(room: str, source: str) -> list[str]:
    """List what a file of a room must not include."""
    found = re.findall(r'^\s*#\s*include\s*"([^"]+)"', source, re.MULTILINE)
    return [target for target in found if target.partition("/")[0] not in MAY_INCLUDE[room]]


def imported_modules(source: str) -> set[str]:
    """List the dotted names that a source imports: `from a import b` gives a and a.b.

    Names passed as literals to `import_module` count too; relative ones are what ruff forbids.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update((str(node.module), *(f"{node.module}.{one.name}" for one in node.names)))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names.update(str(one.value) for one in node.args if isinstance(one, ast.Constant))
    return names


def package_imports() -> dict[str, set[str]]:
    """Map each module of the package, without `foundry_fastlog.`, to the names it imports."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): (
            imported_modules(path.read_text(encoding="utf-8"))
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def module_arrows(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Map each module to those of the package that it imports; "" is the package itself."""
    arrows = {}
    for module, names in imports.items():
        inner = {name[len(PREFIX) :] for name in names if name.startswith(PREFIX)}
        arrows[module] = found = inner & imports.keys()
        # `from a import b` names a too: only the module itself counts where b is one.
        found -= {name.rpartition(".")[0] for name in found}
        if any(name.partition(".")[0] not in {*imports, *ROOMS, "_core"} for name in inner):
            found.add("")  # a name that the package exports
    return arrows


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """List the arrows that run up, or to the package as a user sees it."""
    faults = []
    for module, targets in arrows.items():
        room = module.partition(".")[0]
        if room in ROOMS:
            above = {*ROOMS[ROOMS.index(room) + 1 :], *[""] * (room not in MAY_IMPORT_THE_PACKAGE)}
            faults += [f"{module} -> {to}" for to in targets if to.partition(".")[0] in above]
    return sorted(faults)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, imports within functions among them."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_rooms_of_the_package_import_only_rooms_below_them() -> None:
    arrows = {module: found for module, found in module_arrows(package_imports()).items() if module}
    assert len(arrows) > 100
    assert upward(arrows) == []
    assert circle(arrows) == []


def test_nothing_lies_flat_and_each_room_says_what_it_is() -> None:
    """A new room gets its place in the order, and a sentence."""
    assert {path.stem for path in PACKAGE.glob("*.py")} == FLAT
    rooms = {path.parent.name: path for path in PACKAGE.glob("*/__init__.py")}
    assert set(rooms) == set(ROOMS)
    for path in rooms.values():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert text.partition("\n")[0].endswith("."), path


def test_the_rule_for_rooms_sees_an_arrow_up_and_a_circle() -> None:
    """What is forbidden is found: at the top of a module and within a function."""
    sources = {
        "base.a": "def f():\n    from foundry_fastlog.run import b\n",
        "run.b": "from foundry_fastlog.run.c import x\n",
        "run.c": "import foundry_fastlog.run.b\nfrom foundry_fastlog import Recorder\n",
    }
    imports = {name: imported_modules(source) for name, source in sources.items()}
    arrows = module_arrows(imports)
    assert upward(arrows) == ["base.a -> run.b", "run.c -> "]
    assert set(circle(arrows)) == {"run.b", "run.c"}


def test_rooms_of_csrc_include_only_what_they_may() -> None:
    """A new room must be given its rule above, and none of those is empty."""
    assert include_faults("core", '#include <a>\n#include "core/a.hpp"\n') == []
    assert include_faults("core", '# include "device/b.hpp"\n') == ["device/b.hpp"]
    rooms = {path.name for path in CSRC.iterdir() if path.is_dir()}
    assert rooms == set(MAY_INCLUDE)
    for room in rooms:
        files = [path for path in (CSRC / room).rglob("*") if path.suffix in (".hpp", ".h", ".cpp")]
        assert files
        for path in files:
            assert include_faults(room, path.read_text(encoding="utf-8")) == [], path


def test_a_runs_files_are_reached_through_run_files_alone() -> None:
    """A view of them, and a simulated disk, are asked whatever the system would be."""
    assert SYSTEM_CALL.findall("x = ::open(y);  // ::stat(z)") == ["::open(", "::stat("]
    for name in THROUGH_RUN_FILES:
        sources = sorted((CSRC / "core").glob(f"{name}.?pp"))
        assert sources
        for source in sources:
            code = re.sub(r"//.*", "", source.read_text(encoding="utf-8"))
            assert SYSTEM_CALL.findall(code) == [], source


def test_the_rule_for_imports_sees_each_way_to_import() -> None:
    for source in (
        "import foundry_fastlog._core",
        "from foundry_fastlog import _core",
        "def f():\n    from foundry_fastlog._core import Recorder",
        "importlib.import_module('foundry_fastlog._core')",
    ):
        assert "foundry_fastlog._core" in imported_modules(source), source


def test_three_files_alone_import_the_extension() -> None:
    """Who records, who reads rings and who reads by columns stand between it and everyone else."""
    imports = package_imports()
    importers = {module for module, names in imports.items() if f"{PREFIX}_core" in names}
    assert importers == {"reading.overlay", "reading.scan", "recording.extension"}


def test_files_stay_short() -> None:
    """Below 400 lines, or for a reason."""
    files = [*PACKAGE.rglob("*.py"), *CSRC.rglob("*.[ch]pp"), *CSRC.rglob("*.h")]
    long = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if len(path.read_text("utf-8").splitlines()) > 400
    }
    assert long == set(MAY_BE_LONG)


def test_the_package_imports_neither_tests_nor_benchmarks() -> None:
    """What users install never depends on what only this repository has."""
    imported = {name.split(".")[0] for names in package_imports().values() for name in names}
    assert not imported & {"tests", "benchmarks"}


def run_without_extension(code: str) -> str:
    """Run `code` in a fresh interpreter where the extension cannot be imported; what it says."""
    blocked = "import sys; sys.modules['foundry_fastlog._core'] = None\n"
    return run_python(blocked + code, timeout=60).stdout


def test_without_extension_lines_are_read_and_a_summary_says_how_to_get_it(tmp_path: Path) -> None:
    """Each module that reads can be imported, too."""
    OracleWriter(tmp_path).fill(range(8), loss=2.5)
    run_without_extension("".join(f"import foundry_fastlog.{name}\n" for name in READING_MODULES))
    text = run_without_extension(f"""
from foundry_fastlog import read_run
print(sum(1 for _ in read_run({str(tmp_path)!r}).lines("metrics")))
from foundry_fastlog.cli.main import main
sys.stderr = sys.stdout
print(main(["summary", {str(tmp_path)!r}]))
""")
    assert text.startswith("8\n")
    assert "pip install" in text
    assert "Traceback" not in text
    assert text.rstrip().endswith("2")


def test_the_recorder_without_the_extension_says_how_to_build_it() -> None:
    said = run_without_extension("""
import foundry_fastlog
try:
    foundry_fastlog.Recorder
except ImportError as error:
    print(error)
""")
    assert "pip install" in said
    assert "read_run" in said  # which works


def test_no_lock_can_be_waited_for_by_the_thread_that_holds_it() -> None:
    """Signal handlers, `__del__` and the collector log between any two statements."""
    plain = re.compile(r"threading\.(Lock|Event|Condition|Semaphore|BoundedSemaphore|Barrier)\(")
    found = {
        (path.stem, kind)
        for path in PACKAGE.rglob("*.py")
        for kind in plain.findall(path.read_text(encoding="utf-8"))
    }
    assert found == MAY_LOCK
    held = (("recording/device_tensors", "_running"), ("messages/text_writer", "_starting"))
    for name, lock in held:
        source = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
        assert set(re.findall(rf"{lock}\.acquire\((.*)\)", source)) == {"blocking=False"}
        assert f"with self.{lock}" not in source
