"""Setting up loggers: files, levels, and that nothing is set up twice."""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from recorded import run_python

from foundry_fastlog import (
    LoggingConfig,
    Recorder,
    StructuredLogger,
    TextFileHandler,
    apply_levels,
    cleanup_empty_logs,
    get_latest_log,
    list_experiment_logs,
    setup_experiment_logging,
    setup_logging,
    setup_multi_logging,
)
from foundry_fastlog.messages import setup as log_setup
from foundry_fastlog.messages import text_handlers as text_logs
from foundry_fastlog.messages.setup import attach_experiment
from foundry_fastlog.messages.text_files import TextFile

NUMBER = count()
STAMP = r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}"
TIME, ZONE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", r"[+-]\d\d:\d\d"
START = "2025-09-30_14-30-00"
Capsys, Patch = pytest.CaptureFixture[str], pytest.MonkeyPatch


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name that nobody has used; its loggers lose their handlers at the end."""
    name = f"setup{next(NUMBER)}"
    yield name
    for known in list(logging.Logger.manager.loggerDict):
        if known.split(".")[0] == name:
            logger = logging.getLogger(known)
            for handler in ours(logger):
                logger.removeHandler(handler)
                handler.close()


def ours(logger: logging.Logger) -> list[logging.Handler]:
    """Return this package's handlers; pytest has its own on loggers that do not propagate."""
    return [handler for handler in logger.handlers if hasattr(handler, "fastlog_kind")]


def closed(handlers: list[logging.Handler]) -> list[bool]:
    """Tell of each text log's handler whether its file is closed."""
    return [handler.file._fd < 0 for handler in handlers if isinstance(handler, TextFileHandler)]


def flush(logger: logging.Logger) -> None:
    for handler in ours(logger):
        handler.flush()


def only_log(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def test_a_logger_writes_to_file_and_console(name: str, tmp_path: Path, capsys: Capsys) -> None:
    """The file's name has experiment and time; levels below are left out; nobody else hears."""
    logger = setup_logging(name, "exp0", tmp_path)
    logger.debug("not this")
    logger.info("Dataset loaded", extra={"train_size": 1000})
    flush(logger)
    path = only_log(tmp_path / "exp0")
    assert re.fullmatch(rf"exp0_{STAMP}\.log", path.name)
    wanted = rf" \[INFO\] {name}: Dataset loaded"
    assert re.fullmatch(f"{TIME}{wanted}\n  train_size: 1000\n", path.read_text())
    shown = capsys.readouterr().err
    assert re.fullmatch(f"{TIME}{ZONE}{wanted}  train_size=1000\n", shown)
    assert logger.propagate is False


def test_setting_up_again_changes_levels_and_doubles_nothing(name: str, tmp_path: Path) -> None:
    """As in a notebook whose cell is run again; another experiment gets the logger to itself."""
    logger = setup_logging(name, "exp0", tmp_path)
    first = ours(logger)
    assert setup_logging(name, "exp0", tmp_path, "DEBUG") is logger
    assert ours(logger) == first
    assert [handler.level for handler in first] == [logging.DEBUG] * 2
    logger.debug("first")
    setup_logging(name, "exp1", tmp_path)
    logger.info("second")
    setup_logging(name, "exp1", tmp_path / "elsewhere")
    flush(logger)
    texts = [only_log(tmp_path / experiment).read_text() for experiment in ("exp0", "exp1")]
    assert [re.findall(r"\] \w+: (.*)\n", text) for text in texts] == [["first"], ["second"]]
    assert len(ours(logger)) == 2
    assert closed(first) == [True]


@pytest.fixture
def reloaded() -> Iterator[None]:
    """Reloads the two modules; at the end each of their names is the object that it was."""
    modules = (text_logs, log_setup)
    before = [dict(vars(module)) for module in modules]
    for module in modules:
        importlib.reload(module)
    yield
    for module, names in zip(modules, before, strict=True):
        vars(module).clear()
        vars(module).update(names)


def test_a_reloaded_module(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Their class is another one then; the handlers on the logger are what counts."""
    logger = setup_logging(name, "exp0", tmp_path)
    request.getfixturevalue("reloaded")
    assert log_setup.setup_logging is not setup_logging
    log_setup.setup_logging(name, "exp0", tmp_path)
    assert len(ours(logger)) == 2
    log_setup.attach_experiment(tmp_path, config=LoggingConfig(root_logger=name))()
    assert [handler.fastlog_kind for handler in ours(logger)] == ["file"]  # type: ignore[attr-defined]


SPAWNED = """\
import logging, multiprocessing, sys
from foundry_fastlog import setup_logging

def work(n):
    logger = setup_logging("spawned", "exp0", sys.argv[-1])
    logger.info("worker %d", n)

if __name__ == "__main__":
    logger = setup_logging("spawned", "exp0", sys.argv[-1])
    logger.info("main")
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        worker = context.Process(target=work, args=(method == "fork",))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
"""


def test_children_that_set_up_again_double_nothing(tmp_path: Path) -> None:
    """Neither forked nor spawned ones: each message is once in the files and on the console."""
    script = tmp_path / "script.py"  # a file, which spawned children import
    script.write_text(SPAWNED)
    done = run_python("", tmp_path / "logs", options=["-W", "ignore", str(script)])
    files = "".join(path.read_text() for path in (tmp_path / "logs" / "exp0").iterdir())
    for text in (files, done.stderr):
        rows = sorted(row.split(": ")[1] for row in text.splitlines() if "[INFO]" in row)
        assert rows == ["main", "worker 0", "worker 1"]


def test_levels_and_console_are_configured(name: str, tmp_path: Path, capsys: Capsys) -> None:
    """File and console have levels of their own; a console can be switched off, and on."""
    config = LoggingConfig(console_level="ERROR", file_level="DEBUG")
    logger = setup_logging(name, "exp0", tmp_path, config=config)
    logger.debug("low")
    logger.error("high")
    flush(logger)
    assert only_log(tmp_path / "exp0").read_text().count(name) == 2
    assert capsys.readouterr().err.count(name) == 1
    blocks = LoggingConfig(console_format="block")
    logger = setup_logging(name, "exp0", tmp_path, config=blocks)
    logger.info("a block", extra={"step": 1})
    flush(logger)
    assert f"{name}: a block\n  step: 1\n" in capsys.readouterr().err
    setup_logging(name, "exp0", tmp_path, config=LoggingConfig(console=False))
    assert len(ours(logger)) == 1
    setup_logging(name, "exp0", tmp_path)
    assert len(ours(logger)) == 2


def test_an_experiments_logger_has_its_name(name: str, tmp_path: Path) -> None:
    logger = setup_experiment_logging(name, tmp_path, logging.WARNING)
    assert (logger.name, logger.level) == (name, logging.WARNING)
    assert only_log(tmp_path / name).name.startswith(f"{name}_")


@pytest.mark.parametrize(
    ("experiment", "level", "kind", "said"),
    [
        *((bad, "INFO", ValueError, "experiment's name") for bad in ("", "../b", "..", "/")),
        ("exp0", "LOUD", ValueError, "Unknown level"),
        ("exp0", 1.5, TypeError, "Level not an integer"),
    ],
)
def test_a_mistake_at_set_up_is_an_error(
    experiment: str, level: str, kind: type[Exception], said: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        setup_logging(name, experiment, tmp_path, level)


def test_four_loggers_of_an_experiment(name: str, tmp_path: Path, capsys: Capsys) -> None:
    for _ in range(2):
        loggers = setup_multi_logging(name, tmp_path)
    assert list(loggers) == ["main", "errors", "ablation", "progress"]
    for logger in loggers.values():
        for level in ("debug", "info", "warning"):
            getattr(logger, level)(level)
        flush(logger)
    found = {
        re.sub(rf"_{STAMP}\.log", "", path.name): re.findall(r"\[(\w+)\]", path.read_text())
        for path in (tmp_path / name).iterdir()
    }
    up = ["INFO", "WARNING"]
    every = ["DEBUG", "INFO", "WARNING"]
    assert found == {"main": up, "errors": ["WARNING"], "ablation": every, "progress": up}
    shown = re.findall(rf"\[(\w+)\] {name}\.(\w+)", capsys.readouterr().err)
    told = [("main", up), ("errors", ["WARNING"]), ("progress", up)]
    assert shown == [(level, logger) for logger, levels in told for level in levels]


def test_an_experiment_comes_and_goes(name: str, tmp_path: Path, capsys: Capsys) -> None:
    """Main log, debug log, console and log stream, each from its level on; then as before."""
    logger = StructuredLogger(f"{name}.training.loop", "exp0")
    plain = logging.getLogger(name)
    config = LoggingConfig(root_logger=name)
    with Recorder(tmp_path, fsync="none") as recorder:
        detach = attach_experiment(tmp_path, stamp=START, config=config, recorder=recorder)
        logger.debug("low", step=1)
        logger.info("high", step=2)
        detach()
        logger.error("after")
        detach()
    assert (plain.level, plain.propagate, ours(plain)) == (logging.NOTSET, True, [])
    main, debug = ((tmp_path / f"{kind}_{START}.log").read_text() for kind in ("main", "debug"))
    assert re.findall(r": (\w+)\n  step: \d\n", main) == ["high"]
    assert re.findall(r": (\w+)\n  step: \d\n", debug) == ["low", "high"]
    shown = re.sub(f"^({TIME}){ZONE}", r"\1", capsys.readouterr().err)
    assert shown == main.replace("\n  step: 2", "  step=2")
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 2


def test_one_experiment_gets_messages_at_a_time(name: str, tmp_path: Path) -> None:
    """The last attached; taken off, the one before; the same one takes its own place."""
    plain = logging.getLogger(name)
    config = LoggingConfig(root_logger=name, console=False, file_level="INFO")
    first = attach_experiment(tmp_path / "a", config=config)
    second = attach_experiment(tmp_path / "b", config=config)
    former = ours(plain)
    attach_experiment(tmp_path / "b", config=config)
    assert (closed(former), closed(ours(plain))) == ([True], [False])
    plain.info("to b")
    second()
    plain.info("to b too")
    assert len(ours(plain)) == 1
    third = attach_experiment(tmp_path / "b", stamp=START, config=config)
    plain.info("to another file of b")
    third()
    plain.info("to a")
    first()
    assert (plain.level, plain.propagate, ours(plain)) == (logging.NOTSET, True, [])
    paths = only_log(tmp_path / "a"), *sorted((tmp_path / "b").iterdir())
    texts = [re.findall(": (.*)", path.read_text()) for path in paths]
    assert texts == [["to a"], ["to another file of b"], ["to b", "to b too"]]


def test_experiments_may_end_in_any_order(name: str, tmp_path: Path) -> None:
    """The last to end restores what the program had."""
    plain = logging.getLogger(name)
    plain.setLevel(logging.ERROR)
    config = LoggingConfig(root_logger=name, console=False, file_level="WARNING")
    first = attach_experiment(tmp_path / "a", config=config)
    second = attach_experiment(tmp_path / "b", config=config)
    first()
    plain.error("one")
    plain.info("not this")
    assert len(ours(plain)) == 1
    second()
    assert (plain.level, plain.propagate) == (logging.ERROR, True)
    assert only_log(tmp_path / "a").read_text() == ""
    assert only_log(tmp_path / "b").read_text().endswith(f"[ERROR] {name}: one\n")


def test_old_text_logs_go_and_large_ones_rotate(name: str, tmp_path: Path) -> None:
    """max_log_files and max_log_size_mb; data is never touched."""
    for n in range(5):
        (tmp_path / f"main_2020-01-0{n + 1}_00-00-00.log").write_text("old\n")
        (tmp_path / f"metrics_2020-01-0{n + 1}_00-00-00.jsonl").write_text("{}\n")
    options = {"console": False, "file_level": "INFO", "max_log_files": 3, "max_log_size_mb": 1}
    config = LoggingConfig(root_logger=name, **options)
    detach = attach_experiment(tmp_path, stamp=START, config=config)
    for n in range(8):
        logging.getLogger(name).info("%d %s", n, "x" * 300_000)
    detach()
    paths = sorted(tmp_path.glob("main*"))
    assert [path.name for path in paths] == [f"main_{START}.log{end}" for end in ("", ".1", ".2")]
    assert max(path.stat().st_size for path in paths) <= 1_000_000
    assert len(list(tmp_path.glob("metrics*"))) == 5


def test_subsystems_have_levels_of_their_own(name: str) -> None:
    """Those below inherit; levels that a StructuredLogger gave by default do not stand above."""

    def effective(*subsystems: str) -> list[str]:
        levels = (logging.getLogger(f"{name}.{x}").getEffectiveLevel() for x in subsystems)
        return [logging.getLevelName(level) for level in levels]

    before = StructuredLogger(f"{name}.data.loading", "exp0").logger
    logging.getLogger(f"{name}.model").setLevel(logging.ERROR)
    logging.getLogger(f"{name}.training.loop.inner")
    levels = {"data": "WARNING", "training.loop": "DEBUG"}
    logging.getLogger(name).setLevel(logging.INFO)
    apply_levels(LoggingConfig(root_logger=name, subsystem_levels=levels))
    assert effective("data", "data.loading") == ["WARNING", "WARNING"]
    assert effective("training", "training.loop.inner", "model") == ["INFO", "DEBUG", "ERROR"]
    assert before.level == logging.NOTSET
    # The next experiment's configuration replaces this one's.
    apply_levels(LoggingConfig(subsystem_levels={"": "ERROR"}), root=name)
    assert effective("data") == ["ERROR"]
    apply_levels(LoggingConfig(subsystem_levels={f"{name}.x": "ERROR"}), root="")
    assert logging.getLogger(f"{name}.x").level == logging.ERROR


def break_for(monkeypatch: Patch, name: str, method: str, error: type[OSError]) -> None:
    real = getattr(Path, method)

    def broken(path: Path, **options: bool) -> object:
        if path.name == name:
            raise error(path)
        return real(path, **options)

    monkeypatch.setattr(Path, method, broken)


def test_logs_are_listed_the_newest_first(tmp_path: Path, monkeypatch: Patch) -> None:
    """Name, time of the last change and size; rotated ones are listed, and are not the latest."""
    assert get_latest_log("exp0", tmp_path) is None
    assert list_experiment_logs("exp0", tmp_path) == []
    directory = tmp_path / "exp0"
    directory.mkdir()
    for age, name in enumerate(["new.log.1", "new.log", "old.log", "gone.log"]):
        (directory / name).write_text("x" * age)
        os.utime(directory / name, (1_700_000_000 - age, 1_700_000_000 - age))
    (directory / "metrics.jsonl").write_text("{}\n")
    break_for(monkeypatch, "gone.log", "stat", FileNotFoundError)
    assert get_latest_log("exp0", tmp_path) == directory / "new.log"
    listed = list_experiment_logs("exp0", tmp_path)
    sizes = [(name, size) for name, _, size in listed]
    assert sizes == [("new.log.1", 0), ("new.log", 1), ("old.log", 2)]
    assert re.fullmatch(r"2023-11-1\d \d{2}:\d{2}:\d{2}", listed[0][1])
    assert len(list_experiment_logs("exp0", tmp_path, max_files=1)) == 1
    assert list_experiment_logs("exp0", tmp_path, max_files=-1) == []


def test_empty_logs_are_removed_but_those_in_use(tmp_path: Path, monkeypatch: Patch) -> None:
    """In all experiments; data, links and what is not empty stay."""
    used = TextFile(tmp_path / "exp0" / f"main_{START}.log")
    for name in ("exp0/a.log", "exp1/b.log", "exp1/full.log", "exp1/c.jsonl", "exp1/gone.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "exp1" / "full.log").write_text("x")
    (tmp_path / "exp1" / "link.log").symlink_to(tmp_path / "exp1" / "c.jsonl")
    break_for(monkeypatch, "gone.log", "is_symlink", PermissionError)
    assert cleanup_empty_logs(tmp_path) == 2
    left = {path.name for path in tmp_path.rglob("*.*")}
    assert left == {used.path.name, "full.log", "c.jsonl", "link.log", "gone.log"}
    used.close()
    assert cleanup_empty_logs(tmp_path / "absent") == 0
