"""run.json: content, attempts, permissions, and that it never stands in the way."""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import math
import os
import pickle
import platform
import re
import socket
import subprocess
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from contract import VALIDATORS
from pydantic import BaseModel, ConfigDict
from recorded import TIMESTAMP, in_child, run_python

import foundry_fastlog
from foundry_fastlog import Recorder, read_run, read_runs
from foundry_fastlog.base.environment import git_hash
from foundry_fastlog.run.info import RunFile, plain_config

Patch = pytest.MonkeyPatch


def read(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    VALIDATORS["run"].validate(content)
    return content


def make(directory: Path) -> RunFile:
    return RunFile(directory, name=None, config=None, world_size=None, rank=None)


def names(run: Path) -> list[str]:
    return [path.name for path in run.iterdir()]


def test_content(tmp_path: Path) -> None:
    with Recorder(tmp_path / "exp0", rank=0, world_size=4, config={"lr": 0.1}):
        running = read(tmp_path / "exp0")
    ended = read(tmp_path / "exp0")
    order = ["format", "name", "created", "config", "git_hash", "host", "world_size", "attempts"]
    assert list(running) == order
    facts = [running[name] for name in ("format", "name", "config", "world_size", "host")]
    assert facts == [2, "exp0", {"lr": 0.1}, 4, socket.gethostname()]
    (attempt,) = running["attempts"]
    assert attempt == {
        "attempt": 0,
        "label": "",
        "rank": 0,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": running["created"],
        "ended": None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "foundry_fastlog": foundry_fastlog.__version__,
    }
    finished = ended["attempts"][0].pop("ended")
    assert TIMESTAMP.fullmatch(finished)
    assert finished >= attempt["started"]
    attempt.pop("ended")
    assert ended == running


def test_attempts(tmp_path: Path) -> None:
    """Each resume adds its attempt; what the first start said stays unless it is said anew."""
    with Recorder(tmp_path, name="first", config={"a": 1}, world_size=2):
        created = read(tmp_path)["created"]
    with Recorder(tmp_path):
        pass
    found = read(tmp_path)
    assert (found["name"], found["config"], found["world_size"]) == ("first", {"a": 1}, 2)
    with Recorder(tmp_path, name="second", config={"a": 2}, world_size=8):
        pass
    found = read(tmp_path)
    assert (found["name"], found["config"], found["world_size"]) == ("second", {"a": 2}, 8)
    assert found["created"] == created
    attempts = [(one["attempt"], one["label"]) for one in found["attempts"]]
    assert attempts == [(0, ""), (1, "a1"), (2, "a2")]
    assert all(one["ended"] for one in found["attempts"])
    with Recorder(tmp_path / "other", rank=1):  # other ranks leave it alone
        assert not (tmp_path / "other" / "run.json").exists()
    assert not (tmp_path / "other" / "run.json").exists()


class Settings(BaseModel):
    lr: float = 0.1
    path: Path = Path("/data")


class Handmade:
    """A configuration that is nothing but an object with attributes."""

    def __init__(self) -> None:
        self.lr = 0.1


@dataclasses.dataclass
class Plain:
    lr: float = 0.1


@dataclasses.dataclass
class Slotted:
    __slots__ = ("lr",)
    lr: float


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        *((None, {}), ({}, {}), ({"lr": 0.1}, {"lr": 0.1}), (UserDict(lr=0.1), {"lr": 0.1})),
        (Settings(), {"lr": 0.1, "path": "/data"}),
        *((Plain(), {"lr": 0.1}), (Slotted(0.1), {"lr": 0.1})),
        (argparse.Namespace(lr=0.1), {"lr": 0.1}),
        (argparse.Namespace(__dataclass_fields__=1), {"__dataclass_fields__": 1}),
        (Handmade(), {"lr": 0.1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_configurations(tmp_path: Path, config: object, expected: dict[str, object]) -> None:
    assert plain_config(config) == expected
    with Recorder(tmp_path, config=config):
        assert read(tmp_path)["config"] == expected


class Opaque:
    """What neither JSON nor pydantic knows, as a device of a framework is."""

    __str__ = Mock(return_value="cuda:0")


class WithOpaque(BaseModel):
    """What pydantic does not serialize is text; the rest is what it is."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    device: Opaque = Opaque()
    inner: Settings = Settings()


class Liar:
    model_dump = Mock(side_effect=RuntimeError("no"))
    __str__ = Mock(return_value="liar")


def test_values_within_configurations(tmp_path: Path) -> None:
    """Configurations in a dict or a namespace are plain data too; what JSON does not know is text.

    A value that orjson refuses does not cost the file.
    """
    circular: dict[str, Any] = {}
    circular["again"] = circular
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    namespace = argparse.Namespace(deeper=SimpleNamespace(lr=0.4), opaque=Opaque())
    pairs: list[tuple[Any, Any, Any]] = [
        ("logging", Settings(), {"lr": 0.1, "path": "/data"}),
        ("parts", [Plain(0.2), (Slotted(0.3),)], [{"lr": 0.2}, [{"lr": 0.3}]]),
        ("arguments", namespace, {"deeper": {"lr": 0.4}, "opaque": "cuda:0"}),
        ("mapping", UserDict(m=Settings(lr=0.5)), {"m": {"lr": 0.5, "path": "/data"}}),
        ("model", WithOpaque(), {"device": "cuda:0", "inner": {"lr": 0.1, "path": "/data"}}),
        ("kind", Settings, f"{__name__}.Settings"),
        ("liar", Liar(), "liar"),
        ("path", Path("/data"), "/data"),
        ("nan", float("nan"), "nan"),
        (5, "int key", "int key"),
    ]
    refused = [
        ("seed", 2**128, str(2**128)),
        ("\udc80", "\udc81", "\\udc81"),
        ("circular", circular, {"again": "<circular reference>"}),
    ]
    for run, rows in ((tmp_path / "plain", pairs), (tmp_path / "refused", pairs + refused)):
        config = {name: value for name, value, _ in rows}
        with Recorder(run, config={**config, "deep": deep}, name="\udc80"):
            found = read(run)
        assert found["name"] == "\\udc80"
        assert "nested too deep" in json.dumps(found["config"].pop("deep"))
        readable = {str(name).replace("\udc80", "\\udc80"): value for name, _, value in rows}
        assert found["config"] == readable


@pytest.mark.parametrize("wrong", [5, "lr=0.1", [("lr", 0.1)], Settings, Plain, dict, object()])
def test_no_configuration(wrong: object) -> None:
    with pytest.raises(TypeError, match=f"mapping or a pydantic model, got {type(wrong).__name__}"):
        plain_config(wrong)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"attempts":5}', b'{"attempts":[5,{"attempt":0}]}']
)
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    """And what others added to attempts stays."""
    (tmp_path / "run.json").write_bytes(content)
    with Recorder(tmp_path, name="new"):
        found = read(tmp_path)
        (attempt,) = found["attempts"]
        found["attempts"].append({**attempt, "attempt": 7, "label": "a7"})
        (tmp_path / "run.json").write_text(json.dumps(found), encoding="utf-8")
    assert (found["name"], attempt["pid"]) == ("new", os.getpid())
    assert [one["attempt"] for one in read(tmp_path)["attempts"]] == [7, 0]


def test_another_run_of_its_name_is_left_alone(tmp_path: Path, caplog: Any) -> None:
    """The run was renamed, and what has its name now is another one."""
    run = tmp_path / "run"
    run.mkdir()
    home = (run.stat().st_dev, run.stat().st_ino)
    file = make(run)
    file.write("", 0, directory=home)
    before = (run / "run.json").read_bytes()
    run.rename(tmp_path / "moved")
    run.mkdir()
    file.write("", 0, directory=home, ended=True)
    assert not list(run.iterdir())
    assert (tmp_path / "moved" / "run.json").read_bytes() == before
    assert "renamed or replaced" in caplog.text


def test_another_label_adds_an_entry(tmp_path: Path) -> None:
    """What the process said under the first label ends with it; what others said stays."""
    file, other = make(tmp_path), make(tmp_path)
    other._attempt["pid"] += 1  # of another process
    file.write("", 0)
    other.write("r0", 1)
    file.write("a2", 2, ended=True)
    ended = [(a["label"], a["ended"] is not None) for a in read(tmp_path)["attempts"]]
    assert ended == [("", True), ("r0", False), ("a2", True)]


def test_failed_replacement_leaves_nothing(tmp_path: Path, monkeypatch: Patch, caplog: Any) -> None:
    """And is said once."""
    file = make(tmp_path)
    file.write("", 0)
    before = (tmp_path / "run.json").read_bytes()
    monkeypatch.setattr(Path, "replace", Mock(side_effect=PermissionError("refused")))
    for _ in range(2):
        file.write("", 0, ended=True)
    assert (tmp_path / "run.json").read_bytes() == before
    assert names(tmp_path) == ["run.json"]
    (message,) = caplog.messages
    assert re.search(r"could not write .*/run\.json.*refused.*records are not affected", message)


def test_git_hash(tmp_path: Path, monkeypatch: Patch) -> None:
    """Of what is checked out when it is first asked for: git is run once."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    repository = tmp_path / "repository"
    (repository / "src").mkdir(parents=True)
    assert git_hash(tmp_path) is None

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=e@x", *arguments]
        return subprocess.check_output(command, cwd=repository, text=True).strip()

    git("init", "-q")
    assert git_hash(repository / "src") is None  # nothing is committed
    git("commit", "-q", "--allow-empty", "-m", "first")
    first = git("rev-parse", "HEAD")
    assert git_hash(repository) == first
    monkeypatch.chdir(repository)
    git("commit", "-q", "--allow-empty", "-m", "second")
    monkeypatch.setenv("PATH", str(tmp_path))
    with Recorder(tmp_path / "run"):
        assert read(tmp_path / "run")["git_hash"] == git_hash() == first
    assert git_hash(tmp_path / "nowhere") is None
    assert git_hash(repository / ".git") is None  # there is no git
    monkeypatch.setattr(subprocess, "run", Mock(side_effect=subprocess.TimeoutExpired("git", 5)))
    assert git_hash(repository / ".git/refs") is None


def test_new_files_of_others_go_when_nobody_writes_them(tmp_path: Path) -> None:
    """One is locked as long as somebody does; links and pipes are left alone."""
    held, left = tmp_path / ".run.json.4711-0badcafe", tmp_path / ".run.json.4712-0badcafe"
    left.write_bytes(b'{"format":')
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / ".run.json.link").symlink_to(tmp_path / "target")
    with held.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        make(tmp_path).write("", 0)
        assert (held.exists(), left.exists()) == (True, False)
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert (tmp_path / ".run.json.link").is_symlink()


def test_a_file_removed_before_its_lock_is_written_anew(tmp_path: Path, monkeypatch: Patch) -> None:
    """Who cleans up may see a new file before its writer has locked it."""
    removed = []

    def lock(file: Any, how: int) -> None:
        if not removed:
            [new] = tmp_path.glob(".run.json.*")
            new.unlink()
            removed.append(new.name)
        fcntl_flock(file, how)

    fcntl_flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lock)
    make(tmp_path).write("", 0)
    assert removed
    assert names(tmp_path) == ["run.json"]


def test_a_configuration_grows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also by other ranks; what a later start is given is its own."""
    with Recorder(tmp_path, config={"lr": 1.0, "seed": 1}, rank=0, launch="a") as recorder:
        recorder.record(0, loss=1.0)
        recorder.update_config({"lr": 2.0, "data": {"name": "x"}})
        with Recorder(tmp_path, rank=1, launch="a") as other:
            other.record(0, loss=1.0)
            other.update_config(SimpleNamespace(rank1=True))
        recorder.update_config({"late": math.inf})
        with pytest.raises(TypeError, match="config must be"):
            recorder.update_config(5)
    grown = {"lr": 2.0, "seed": 1, "data": {"name": "x"}, "rank1": True, "late": "inf"}
    (report,) = read_run(tmp_path).report_starts()
    assert report.config == grown
    assert read(tmp_path)["config"] == {name: grown[name] for name in grown if name != "rank1"}
    (found,) = read_runs(tmp_path)
    assert found.config["data"] == {"name": "x"}
    with Recorder(tmp_path, config={"lr": 3.0}) as recorder:
        recorder.record(1, loss=1.0)
    assert [one.config for one in read_run(tmp_path).report_starts()] == [grown, {"lr": 3.0}]
    assert not list(tmp_path.rglob("*.tmp"))
    caplog.clear()
    (tmp_path / "starts" / "000001.config.json").mkdir()
    with Recorder(tmp_path, config={"lr": 4.0}, resume="must") as recorder:
        (tmp_path / "starts" / "000002.config.json").mkdir()
        recorder.update_config({"lr": 5.0})
    assert "could not add to the configuration" in caplog.text
    assert read_run(tmp_path).report_starts()[-1].config == {"lr": 4.0}


def test_workers_and_the_configuration(tmp_path: Path) -> None:
    """A forked child adds to it; a spawned one says that it cannot."""
    with Recorder(tmp_path, config={"lr": 1.0}) as recorder:
        in_child(lambda: recorder.update_config({"child": 1}))
        (tmp_path / "worker").write_bytes(pickle.dumps(recorder))
        code = "import pickle, sys; r = pickle.load(open(sys.argv[1], 'rb'))"
        said = run_python(
            f"{code}; r.update_config({{'x': 1}}); r.close()", tmp_path / "worker"
        ).stderr
    assert "a spawned worker cannot change the configuration" in said
    (report,) = read_run(tmp_path).report_starts()
    assert report.config == {"lr": 1.0, "child": 1}


def test_settings_that_json_has_not(tmp_path: Path) -> None:
    """Nothing of them is lost, and two starts of one program have the same."""
    deep: dict[str, object] = {"end": math.inf}
    for _ in range(60):
        deep = {"in": deep}
    config = {
        "inf": math.inf,
        "list": [-math.inf, {"nan": math.nan}, 1.5],
        "function": test_a_configuration_grows,
        "class": Recorder,
        "built in": print,
        "method": [].append,
        "deep": deep,
    }
    for _ in range(2):
        with Recorder(tmp_path, config=config) as recorder:
            recorder.record(0, loss=1.0)
    first, second = (one.config for one in read_run(tmp_path).report_starts())
    assert first == second
    assert read(tmp_path)["config"] == first
    assert first["inf"] == "inf"
    assert first["list"] == ["-inf", {"nan": "nan"}, 1.5]
    assert first["function"].endswith("test_run_info.test_a_configuration_grows")
    assert first["class"] == "foundry_fastlog.recording.recorder.Recorder"
    assert first["built in"] == "builtins.print"
    assert first["method"] == "builtins.list.append"
