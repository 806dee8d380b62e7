"""`recover` completes the text logs of killed runs from their log streams."""

from __future__ import annotations

import json
import re
import shutil
import socket
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from recorded import run_python

from foundry_fastlog import Recorder, TextFileHandler, recover
from foundry_fastlog.messages import text_recovery
from foundry_fastlog.messages.text_files import is_in_use
from foundry_fastlog.messages.text_lines import text_of
from foundry_fastlog.messages.text_recovery import complete_text_logs

Command = Callable[..., Any]

KILLED = """
    import os, sys
    from foundry_fastlog import ExperimentLogging, LoggingConfig
    from foundry_fastlog.messages import text_writer
    from types import SimpleNamespace

    logging = LoggingConfig(console=False, system_metrics_every_s=0, **eval(sys.argv[2]))
    experiment = {"experiment_name": "e", "logging": logging}
    logs = ExperimentLogging(experiment, directory=sys.argv[1], stamped=eval(sys.argv[3]))
    log = logs.logger("training")

    def say(first, last):
        for n in range(first, last):
            log.info("Step", step=n, loss=1 / (n + 1), nan=float("nan"), names=["a", "b"], odd={1})
            log.debug("tick")
            log.warning("several\\nlines", note="a\\nb")

    say(0, 20)
    try:
        raise OSError("full")
    except OSError:
        log.exception("Not saved")
    text_writer.writer.flush()
    text_writer.TextWriter._write = lambda *_: None  # what is said from now on stays in the queue
    text_writer._ERROR_S = 0
    say(20, 30)
    try:
        raise OSError("full again")
    except OSError:
        log.exception("Not saved")
    logs.recorder.event("not said by a logger", level="DEBUG")
    os._exit(0)
"""


RENAMED = """
    import logging, os, sys
    from foundry_fastlog import ExperimentLogging, LoggingConfig
    from foundry_fastlog.messages import text_writer

    logging.addLevelName(logging.INFO, sys.argv[2])
    section = LoggingConfig(console=False, system_metrics_every_s=0, recorder={"ring_bytes": 65536})
    logs = ExperimentLogging({"experiment_name": "e", "logging": section}, directory=sys.argv[1])
    log = logs.logger("training")
    for n in range(20):
        log.info("Step %d", n)
    log.info("long " + "y" * 60_000)
    log.error("last")  # waits for all before it
    text_writer.TextWriter._write = lambda *_: None
    text_writer._ERROR_S = 0
    for n in range(20, 30):
        log.info("Step %d", n)
    log.error("unwritten")
    os._exit(0)
"""


@pytest.mark.parametrize("name", ["INFO", "I", "\x1b[32mINFO\x1b[0m"])
def test_renamed_levels_and_messages_that_the_stream_has_cut(tmp_path: Path, name: str) -> None:
    """Levels are told by what was said with them; a beginning stands for the whole."""
    run_python(textwrap.dedent(RENAMED), tmp_path / "run", name)
    recover(tmp_path / "run")
    (log,) = (tmp_path / "run").glob("main_*.log")
    text = log.read_text()
    assert re.findall(r"Step (\d+)", text) == [str(n) for n in range(30)]
    assert text.count("long yyy") == 1
    assert text.count(f"[{name}]") == 32  # the start of the run, too
    assert text.count("[ERROR]") == 2
    complete_text_logs(tmp_path / "run")
    assert log.read_text() == text


RANKS = """
    import os, sys
    os.environ |= {"RANK": sys.argv[2], "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    from foundry_fastlog import ExperimentLogging, LoggingConfig

    section = LoggingConfig(console=False, system_metrics_every_s=0, recorder={"ring_bytes": 65536})
    logs = ExperimentLogging({"experiment_name": "e", "logging": section}, directory=sys.argv[1])
    logs.logger("training").error("said")
    logs.recorder.event("in no text log", level="ERROR")
    if sys.argv[3] == "close":
        logs.close()
    os._exit(0)
"""


@pytest.mark.parametrize("ending", ["close", "kill"])
def test_the_log_of_a_rank_that_closed_is_left_alone(tmp_path: Path, ending: str) -> None:
    """It notes no end, as the first one does; who was killed has a ring, or is noted."""
    run = tmp_path / "run"
    for rank, how in (("0", "close"), ("1", ending)):
        run_python(textwrap.dedent(RANKS), run, rank, how)
    (log,) = run.glob("main_*.r1.log")
    before = log.read_text()
    assert bool(complete_text_logs(run, dry_run=True)) == (ending == "kill")
    for _ in range(2):
        recover(run)
        assert (log.read_text() == before) == (ending == "close")


@pytest.fixture(scope="module")
def killed_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that were killed, by what is special about them."""
    base = tmp_path_factory.mktemp("killed")
    kinds = {"plain": "{}", "warnings": "{'file_level': 'WARNING'}", "unstamped": "{}"}
    for kind, section in kinds.items():
        stamped = kind != "unstamped"
        run_python(textwrap.dedent(KILLED), base / kind, section, stamped)
    return {kind: base / kind for kind in kinds}


@pytest.fixture
def killed(killed_runs: dict[str, Path], tmp_path: Path) -> Path:
    return copied(killed_runs["plain"], tmp_path)


def copied(run: Path, tmp_path: Path) -> Path:
    """Copy a run; its ring then counts as one of a machine that was restarted."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def log(run: Path, kind: str = "main") -> Path:
    (path,) = run.glob(f"{kind}_*.log")
    return path


def steps(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\[INFO\] \S+: Step\n  step: (\d+)\n", text)]


@pytest.mark.parametrize("kind", ["plain", "unstamped"])
def test_text_logs_get_what_they_lack(
    killed_runs: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Each message once, as the writer would have written it; done again nothing changes."""
    run = copied(killed_runs[kind], tmp_path)
    before = log(run).read_text()
    recover(run)
    main, debug = (log(run, kind).read_text() for kind in ("main", "debug"))
    assert main.startswith(before)
    assert steps(before) == list(range(20))
    assert steps(main) == steps(debug) == list(range(30))
    assert (main.count("tick"), debug.count("tick")) == (0, 30)
    assert main.count("several\n  lines\n  note: a\n    b\n") == 30
    assert main.count("[ERROR]") == main.count("  Traceback (most recent call last):") == 2
    assert "loss: 0.03333333333333333\n  nan: nan\n  names: ['a', 'b']\n" in main
    assert main.count("Run started") == 1
    assert (debug.count("not said by a logger"), main.count("not said")) == (1, 0)
    assert complete_text_logs(run) == []
    recover(run.parent)
    assert (log(run).read_text(), log(run, "debug").read_text()) == (main, debug)


def test_a_logs_own_level(killed_runs: dict[str, Path], tmp_path: Path) -> None:
    """What it never had it does not lack."""
    run = copied(killed_runs["warnings"], tmp_path)
    (report,) = complete_text_logs(run)
    assert "[INFO]" not in log(run).read_text()
    assert report.added == 11
    assert complete_text_logs(run) == []


def test_the_command(killed: Path, command: Command) -> None:
    before = log(killed).read_bytes()
    dry = command("recover", "--dry-run", killed)
    assert re.search(r"main_\S+\.log: 21 messages would be added", dry.out)
    assert re.search(r"debug_\S+\.log: 32 messages would be added", dry.out)
    assert log(killed).read_bytes() == before
    found = json.loads(command("recover", killed, "--json").out)
    added = {Path(text["path"]).name[:4]: text["added"] for text in found["text_logs"]}
    assert added == {"main": 21, "debu": 32}
    assert json.loads(command("recover", killed, "--json").out)["text_logs"] == []


def test_one_message(killed: Path, command: Command) -> None:
    recover(killed)
    text = log(killed).read_text()
    log(killed).write_text(text[: text.rindex("\n20") + 1])
    assert "log: 1 message added" in command("recover", killed).out
    assert log(killed).read_text() == text


@pytest.mark.parametrize("torn", ["2025-11-", "2025-11-29 12:30:05 [INFO] x: m"])
def test_a_torn_line(killed: Path, torn: str) -> None:
    """It stays, as a line of its own."""
    before = log(killed).read_text()
    log(killed).write_text(before + torn)
    recover(killed)
    text = log(killed).read_text()
    assert text.startswith(f"{before}{torn}\n2")
    assert steps(text) == list(range(30))
    assert complete_text_logs(killed) == []


def test_an_empty_log_gets_all(killed: Path) -> None:
    log(killed).write_text("")
    recover(killed)
    assert steps(log(killed).read_text()) == list(range(30))
    assert complete_text_logs(killed) == []


def test_a_log_that_was_rotated(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was moved to another file is not missing; one that gets full is rotated."""
    main = log(killed)
    rotated = main.with_name(f"{main.name}.1")
    before = main.read_text()
    main.rename(rotated)
    main.write_text("")
    monkeypatch.setattr(text_recovery, "_DEFAULT_MAX_MB", 0.001)
    info = next((killed / "starts").glob("*1.json"), None) or next((killed / "starts").iterdir())
    info.write_text(info.read_text().replace('"max_log_size_mb"', '"was_max_log_size_mb"'))
    recover(killed)
    files = sorted(killed.glob("main_*.log*"), key=lambda path: (len(path.name), path.name))
    assert len(files) > 2
    text = "".join(path.read_text() for path in (*reversed(files[1:]), files[0]))
    assert text.startswith(before)
    assert steps(text) == list(range(30))
    assert complete_text_logs(killed) == []


@pytest.mark.parametrize(
    "what", ["removed", "link", "used", "foreign", "no date", "zone", "full", "ended", "gone"]
)
def test_logs_that_are_left_alone(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing is created, followed or written to that is not the killed process's own."""
    main, other = log(killed), tmp_path / "other"
    log(killed, "debug").unlink()
    handler = None
    if what in ("removed", "link"):
        main.rename(other)
    if what == "link":
        main.symlink_to(other)
    elif what == "used":
        handler = TextFileHandler(main)
    elif what == "foreign":
        main.write_text("2025-09-30T14:30:15 INFO somebody's\n")
    elif what == "no date":
        main.write_text("2025-99-99 14:30:15 [INFO] x: y\n")
    elif what == "zone":
        text = main.read_text()
        hour = (int(text[11:13]) + 5) % 24  # as somewhere else on the same day
        main.write_text(re.sub(r"^(\S+ )\d\d", rf"\g<1>{hour:02}", text, flags=re.MULTILINE))
        assert main.read_text() != text
    elif what == "full":
        monkeypatch.setattr("os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    elif what == "ended":
        main.rename(killed / "main_2001-01-01_00-00-00.log")
    elif what == "gone":
        monkeypatch.setattr(text_recovery, "Run", lambda _: (_ for _ in ()).throw(OSError))
    paths = [path for path in (*killed.glob("main*"), other) if path.exists()]
    before = {path: path.read_bytes() for path in paths}
    assert complete_text_logs(killed) == []
    assert {path: path.read_bytes() for path in paths} == before
    if handler is not None:
        handler.close()


def test_a_run_that_goes_on_or_was_closed(tmp_path: Path, killed: Path) -> None:
    """Its own process writes its logs; one without text logs lacks none."""
    with Recorder(tmp_path / "live", stamp="2025-09-30_14-30-00") as recorder:
        recorder.event("said")
        recorder.flush()
        path = tmp_path / "live" / "main_2025-09-30_14-30-00.log"
        path.write_text("")
        assert complete_text_logs(tmp_path / "live") == []
    assert complete_text_logs(tmp_path / "live") == []
    path.unlink()
    assert complete_text_logs(tmp_path / "live") == []
    assert path.parent.exists()


BASE = 1_700_000_000
STAMP = "2023-11-14_22-13-20"


def line(seq: int, second: int, level: str, message: str) -> str:
    moment = datetime.fromtimestamp(BASE + second, timezone.utc).isoformat()[:19]
    record = {"timestamp": f"{moment}.500000Z", "seq": seq, "level": level, "logger": "x"}
    return json.dumps({**record, "message": message, "context": {}}, separators=(",", ":")) + "\n"


def test_a_level_that_the_log_has_never_taken(tmp_path: Path) -> None:
    """Known from long before; another start's messages are another log's."""
    (tmp_path / ".fastlog").mkdir()
    (tmp_path / "starts").mkdir()
    entry = {"format": 2, "start": 0, "stamp": STAMP, "host": socket.gethostname()}
    (tmp_path / "starts" / "000000.json").write_text(json.dumps(entry))
    said = [
        *((0, "INFO", "a"), (0, "WARNING", "b")),
        *((50, "WARNING", "c"), (50, "INFO", "d"), (51, "WARNING", "e")),
    ]
    stream = "".join(line(seq, *one) for seq, one in enumerate(said))
    (tmp_path / f"log_{STAMP}.jsonl").write_text(stream)
    (tmp_path / "log_2023-11-15_22-13-20.a1.jsonl").write_text(line(0, 52, "ERROR", "other"))
    path = tmp_path / f"main_{STAMP}.log"
    written = [
        (BASE + second, 30, "x", message, {}, "") for second, message in ((0, "b"), (50, "c"))
    ]
    path.write_text("".join(map(text_of, written)))
    assert complete_text_logs(tmp_path) == [text_recovery.TextReport(path, 1)]
    assert re.findall(r"x: (\w+)", path.read_text()) == ["b", "c", "e"]
    assert complete_text_logs(tmp_path) == []


def test_what_locks_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is gone is nobody's to write to; without locks the start's state has to do."""
    assert is_in_use(tmp_path / "gone")
    (tmp_path / "log").touch()
    assert not is_in_use(tmp_path / "log")
    refuse = Mock(side_effect=OSError(37, "No locks available"))
    monkeypatch.setattr("fcntl.flock", refuse)
    assert not is_in_use(tmp_path / "log")
    refuse.assert_called_once()


def test_only_a_marked_beginning_counts_as_cut() -> None:
    entry = partial(text_recovery._Entry, 0)
    whole = entry("INFO", "a long message")
    assert entry("INFO", "a long... (14 characters)").is_cut_from(whole)
    assert not entry("INFO", "a long").is_cut_from(whole)
    assert not entry("ERROR", "a long... (14 characters)").is_cut_from(whole)
    assert not entry("INFO", "along... (14 characters)").is_cut_from(whole)
