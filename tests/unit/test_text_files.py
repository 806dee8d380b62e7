"""Text log files: appended by several processes, rotated, and removed only when nobody writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest
from logging_support import run_processes
from recorded import in_child, start_python

from foundry_fastlog.messages import text_files
from foundry_fastlog.messages.text_files import TextFile, remove_old, remove_unused, text_logs
from foundry_fastlog.recording.packing import pack
from foundry_fastlog.run.files import timestamp

Patch, Caplog = pytest.MonkeyPatch, pytest.LogCaptureFixture
NAME = "main_2025-09-30_14-30-00.log"


def put(file: TextFile, *texts: str) -> None:
    file.write([(0.0, 20, "x", text, {}, "") for text in texts], texts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exp0" / NAME


@pytest.fixture
def file(path: Path) -> Iterator[TextFile]:
    file = TextFile(path, max_bytes=100, keep=3)
    yield file
    file.close()


def test_a_file_is_there_at_once_and_is_appended_to(path: Path) -> None:
    """Directories are made; what is in the file stays; odd characters are no fault."""
    TextFile(path).close()
    assert path.read_bytes() == b""
    path.write_text("before\n")
    file = TextFile(path)
    put(file, "é\n", "\udc80\n")
    file.close()
    file.close()
    assert path.read_text() == "before\né\n\\udc80\n"


def test_a_closed_standard_stream_is_no_log(path: Path, tmp_path: Path) -> None:
    """What a C library writes to descriptor 2 must get into no file of a run."""
    plain = tmp_path / "metrics.jsonl"
    plain.write_text("{}\n")

    def spoil() -> bool:
        for descriptor in range(3):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"from a library\n")
        return True

    def run() -> None:
        os.closerange(0, 3)
        file = TextFile(path, max_bytes=8)
        for n in range(3):
            put(file, f"line {n}\n")
            spoil()
        pack(plain, "gzip", keep=True, go_on=spoil)

    in_child(run)
    logs = [path.with_name(f"{NAME}{end}").read_text() for end in (".2", ".1", "")]
    assert logs == [f"line {n}\n" for n in range(3)]
    with gzip.open(f"{plain}.gz", "rt") as packed:
        assert packed.read() == "{}\n"


def test_a_file_rotates_before_it_is_too_large(file: TextFile, path: Path) -> None:
    """Names shift, the oldest beyond the limit goes, no line is split or lost."""
    for n in range(10):
        put(file, f"{n}" * 39 + "\n", f"{n}" * 39 + "\n")
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == [NAME, f"{NAME}.1", f"{NAME}.2"]
    kept = [(path.parent / name).read_text() for name in reversed(names)]
    assert "".join(kept) == "".join((f"{n}" * 39 + "\n") * 2 for n in (7, 8, 9))


def test_a_batch_is_cut_where_the_file_is_full(file: TextFile, path: Path) -> None:
    """One write may fill several files; a line longer than a file has one for itself."""
    put(file, "a" * 59 + "\n", "b" * 59 + "\n", "c" * 200 + "\n", "d\n")
    assert path.read_text() == "d\n"
    assert path.with_name(f"{NAME}.1").read_text() == "c" * 200 + "\n"
    assert path.with_name(f"{NAME}.2").read_text() == "b" * 59 + "\n"


def test_a_file_that_another_process_rotated_is_found_again(file: TextFile, path: Path) -> None:
    """So is one that was removed, or that somebody replaced."""
    put(file, "one\n")
    path.rename(path.with_name(f"{NAME}.1"))
    put(file, "two\n")
    path.write_text("")
    path.unlink()
    put(file, "three\n")
    assert path.read_text() == "three\n"
    os.close(file._fd)  # programs that become daemons close all descriptors
    put(file, "four\n")
    os.close(file._fd)
    file.close()
    assert path.read_text() == "three\nfour\n"


def test_two_writers_rotate_once(file: TextFile, path: Path) -> None:
    """Who comes second sees that the name leads to a new file already."""
    other = TextFile(path, max_bytes=100, keep=3)
    put(file, "a" * 79 + "\n")
    put(other, "b" * 79 + "\n")
    with text_files._directory_locked(path.parent):
        pass
    file._rotate([b"c" * 9 + b"\n"])
    other.close()
    assert path.read_text() == "b" * 79 + "\n" + "c" * 9 + "\n"
    assert path.with_name(f"{NAME}.1").read_text() == "a" * 79 + "\n"
    assert not path.with_name(f"{NAME}.2").exists()


def test_names_are_shifted_once_for_a_batch(file: TextFile, path: Path, monkeypatch: Patch) -> None:
    """However many files it fills; a number that is free stays free, and nothing is replaced."""
    file.keep = 0
    for number in (1, 2, 4):
        path.with_name(f"{NAME}.{number}").write_text(f"old {number}\n")
    path.with_name(f"{NAME}.bak").write_text("not a log's number")
    put(file, "old 0\n")
    renamed: list[Path] = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda old, new: (renamed.append(old), rename(old, new))[1])
    put(file, *(f"{n}" * 99 + "\n" for n in range(3)))
    assert path.read_text() == "2" * 99 + "\n"
    texts = {p.name.rpartition(".")[2]: p.read_text()[:6].strip() for p in path.parent.iterdir()}
    new = {"log": "222222", "1": "111111", "2": "000000", "3": "old 0"}
    assert texts == {**new, "4": "old 1", "5": "old 2", "7": "old 4", "bak": "not a"}
    assert len(renamed) == 4 + 2


@pytest.mark.parametrize("kind", ["link", "pipe", "pipe with a reader", "device"])
def test_what_is_no_file_is_told_and_left_alone(path: Path, kind: str, caplog: Caplog) -> None:
    """A link leads elsewhere, a pipe without a reader would hold up the program."""
    path.parent.mkdir()
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("untouched")
    reader = -1
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind.startswith("pipe"):
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if "reader" in kind else -1
    file = TextFile("/dev/null" if kind == "device" else path, keep=1)
    put(file, "one\n")
    assert (file.errors, elsewhere.read_text()) == (1, "untouched")
    assert [record.message.count("could not write") for record in caplog.records] == [1]
    if reader >= 0:
        os.close(reader)


def write(path: Path, worker: int) -> None:
    file = TextFile(path, max_bytes=10_000)
    for n in range(400):
        put(file, f"{worker} {n} " + "x" * (n % 90) + "\n")


def test_several_processes_share_a_file_that_rotates(path: Path) -> None:
    run_processes(write, *((path, n) for n in range(3)), method="spawn")
    files = list(path.parent.iterdir())
    assert len(files) > 3
    rows = [row for file in files for row in file.read_text().splitlines()]
    wanted = [f"{w} {n} " + "x" * (n % 90) for w in range(3) for n in range(400)]
    assert sorted(rows) == sorted(wanted)
    # A process that had not yet noticed a rotation may have filled the old file a little more.
    assert max(file.stat().st_size for file in files) < 11_000


def test_a_full_disk_is_told_once_and_leaves_no_joined_lines(
    file: TextFile, path: Path, monkeypatch: Patch, caplog: Caplog
) -> None:
    """Half a line may be there; the next one begins on a line of its own."""
    write = os.write

    def fill(fd: int, data: memoryview) -> int:
        if len(data) > 4:
            return write(fd, data[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(os, "write", fill)
        put(file, "1234567\n")
        put(file, "lost\n")
    assert file.errors == 2
    assert [record.message.count("No space left") for record in caplog.records] == [1]
    put(file, "after\n")
    put(file, "more\n")
    # "1234", then the newline before "lost" and its first letters, then lines again.
    assert path.read_text().splitlines()[-2:] == ["after", "more"]
    assert "1234" in path.read_text().splitlines()


def test_a_directory_that_refuses_is_told(tmp_path: Path, caplog: Caplog) -> None:
    """A file stands in the directory's place; when that has gone, writing works."""
    place = tmp_path / "exp0"
    place.write_text("a file")
    file = TextFile(place / NAME)
    put(file, "lost\n")
    assert file.errors == 1
    assert len(caplog.records) == 1
    assert "could not write the text log" in caplog.text
    place.unlink()
    put(file, "there\n")
    file.close()
    assert (place / NAME).read_text() == "there\n"


def make_logs(directory: Path, *names: str) -> None:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_text("x\n")


def test_only_the_oldest_of_a_kind_are_removed(tmp_path: Path) -> None:
    """Rotated ones count; other kinds, data, links and foreign names stay."""
    new = "main_2025-09-30_14-30-02.log"
    others = ["debug_2025-09-30_14-30-00.log", "errors_2020-09-30_14-30-00.jsonl", "main.log"]
    stay = [*others, "main_2020-09-30_14-30-00.log.bak", new, f"{new}.1"]
    go = [f"{new}.10", f"{new}.2", NAME, f"{NAME}.1"]
    make_logs(tmp_path, *stay, *go)
    (tmp_path / "main_2020-01-01_00-00-00.log").symlink_to(tmp_path / "main.log")
    (tmp_path / "main_2020-01-02_00-00-00.log").mkdir()
    removed = remove_old(tmp_path / new, keep=2)
    assert [path.name for path in removed] == [f"{NAME}.1", NAME, go[0], go[1]]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*stay, "main_2020-01-01_00-00-00.log", "main_2020-01-02_00-00-00.log"}


def test_a_log_that_is_being_written_is_never_removed(tmp_path: Path) -> None:
    """Neither by retention nor by clean-up, from this process or another."""
    old = tmp_path / NAME
    code = (
        "import sys; from foundry_fastlog.messages.text_files import TextFile\n"
        "file = TextFile(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    other = start_python(code, old, stdin=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    make_logs(tmp_path, "main_2025-09-30_14-30-01.log")
    new = TextFile(tmp_path / "main_2025-09-30_14-30-02.log", keep=1)
    assert sorted(tmp_path.iterdir()) == [old, new.path]
    assert not remove_unused(old)
    assert not remove_unused(new.path)
    other.communicate()
    assert remove_unused(old)
    assert not remove_unused(old)
    new.close()


def test_a_file_removed_before_it_is_locked(path: Path, monkeypatch: Patch) -> None:
    """Retention of another process may take it for one that nobody writes."""
    lock = text_files._lock_shared

    def remove_then_lock(fd: int) -> None:
        monkeypatch.setattr(text_files, "_lock_shared", lock)
        path.unlink()
        lock(fd)

    monkeypatch.setattr(text_files, "_lock_shared", remove_then_lock)
    file = TextFile(path)
    put(file, "one\n")
    file.close()
    assert path.read_text() == "one\n"


def test_without_locks_files_are_written_and_none_removed(path: Path, monkeypatch: Patch) -> None:
    """Some network file systems have no locks."""
    refuse = Mock(side_effect=OSError(errno.ENOLCK, "No locks available"))
    monkeypatch.setattr(fcntl, "flock", refuse)
    file = TextFile(path, max_bytes=10, keep=1)
    put(file, "12345678\n", "12345678\n")
    file.close()
    assert {p.name for p in path.parent.iterdir()} == {NAME, f"{NAME}.1"}


def test_what_retention_does_not_see(tmp_path: Path, caplog: Caplog) -> None:
    """Logs of other ranks, which are of one start; a directory that cannot be listed."""
    starts = [f"main_2025-09-30_14-30-0{second}" for second in range(3)]
    make_logs(tmp_path, *(f"{start}{rank}.log" for start in starts for rank in ("", ".r1", ".r12")))
    make_logs(tmp_path, f"{starts[0]}.r1.log.1")
    removed = remove_old(tmp_path / f"{starts[2]}.r1.log", keep=2)
    assert [path.name for path in removed] == [f"{starts[0]}.r1.log.1", f"{starts[0]}.r1.log"]
    assert remove_old(tmp_path / f"{starts[2]}.log", keep=3) == []
    assert remove_old(tmp_path / "main.log", keep=1) == []
    assert text_logs(tmp_path / "absent") == []
    assert remove_old(tmp_path / "absent" / NAME, keep=1) == []
    assert "could not remove old text logs" in caplog.text
    assert text_files.LOG_NAME.fullmatch(f"main_{timestamp()}.log")
    assert not text_files.LOG_NAME.fullmatch(f"main_{timestamp()}.r0.log")


def test_a_log_removed_while_they_are_listed(tmp_path: Path, monkeypatch: Patch) -> None:
    """Several processes may apply retention at the same time."""
    make_logs(tmp_path, NAME, f"{NAME}.1")
    entries = list(os.scandir(tmp_path))

    def listing(_: object) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        (tmp_path / NAME).unlink()
        return nullcontext(iter(entries))

    monkeypatch.setattr(os, "scandir", listing)
    assert [path.name for path, _, _ in text_logs(tmp_path)] == [f"{NAME}.1"]


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_nothing_is_writable_by_everybody(path: Path, umask: int, mode: int) -> None:
    """Logs and directories have what the umask leaves, and never more than the group's share."""
    before = os.umask(umask)
    try:
        TextFile(path).close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert path.parent.stat().st_mode & 0o777 == mode | (mode & 0o444) >> 2
