"""A Recorder whose constructor was not called, or failed: all uses say so, and none crashes."""

from __future__ import annotations

import copy
import pickle
import sys
from functools import partial
from pathlib import Path

import pytest
from recorded import run_python

from foundry_fastlog import Recorder


def failed(path: Path) -> Recorder:
    """The object of a constructor that raised, as a traceback keeps it."""
    path.write_bytes(b"")
    try:
        Recorder(path)
    except NotADirectoryError as error:
        trace = error.__traceback__
        while trace is not None and "self" not in trace.tb_frame.f_locals:
            trace = trace.tb_next
        assert trace is not None
        recorder = trace.tb_frame.f_locals["self"]
    assert isinstance(recorder, Recorder)
    return recorder


USES = (
    *("record(0, x=1.0)", "record_dict(0, {'x': 1.0})", "log({'x': 1.0})", "timer('t')"),
    *("event('m')", "message('INFO', 'l', 'm', {})", "epoch_summary(1, {'x': 1.0})", "flush()"),
    *("flush(1.0, stream='log')", "close()", "closed", "stats()", "files()", "path", "rank"),
    *(
        "world_size",
        "label",
        "stamp",
        "attempt",
        "_fragment(0, b'')",
        "_largest_fragment",
        "_label",
    ),
    "__enter__().__exit__(None, None, None)",
)


@pytest.mark.parametrize("fails", [True, False], ids=["failed", "new"])
def test_every_use_says_that_it_was_never_opened(tmp_path: Path, *, fails: bool) -> None:
    recorder = failed(tmp_path / "file") if fails else Recorder.__new__(Recorder)
    assert repr(recorder) == "<Recorder, never opened>"
    uses = [partial(eval, f"recorder.{use}", {"recorder": recorder}) for use in USES]
    copies = [partial(copied, recorder) for copied in (pickle.dumps, copy.copy, copy.deepcopy)]
    for use in (*uses, *copies, partial(recorder.record.__call__, recorder)):
        with pytest.raises((RuntimeError, AttributeError), match="never opened"):
            use()
    assert not hasattr(recorder, "unknown")
    recorder.mine = 1  # type: ignore[attr-defined]
    assert recorder.mine == 1  # type: ignore[attr-defined]
    del recorder.mine  # type: ignore[attr-defined]
    del recorder


@pytest.mark.parametrize("closed", [False, True])
def test_a_recorder_is_opened_once(tmp_path: Path, *, closed: bool) -> None:
    recorder = Recorder(tmp_path / "run", rank=1)
    assert recorder.record(0, x=1.0)
    if closed:
        assert recorder.close()
    with pytest.raises(RuntimeError, match=r"was already opened, in .*/run: create a new one"):
        recorder.__init__(tmp_path / "other", rank=-1)  # type: ignore[misc]
    assert (recorder.path, recorder.rank, recorder.closed) == (tmp_path / "run", 1, closed)
    assert not (tmp_path / "other").exists()
    assert recorder.close()
    assert recorder.stats()["written"] == 1


def test_methods_of_the_core_want_a_core() -> None:
    """A TypeError, whatever else they are called with."""
    for method in ("_flush", "_close"):
        with pytest.raises(TypeError, match="needs a Recorder"):
            getattr(Recorder, method)(42, 1.0)
    assert Recorder._opened.fget(42) is False  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there, Python itself refuses the import")
def test_a_subinterpreter_is_refused() -> None:
    code = """
import _xxsubinterpreters as interpreters
code = '''
try:
    import foundry_fastlog._core
    from foundry_fastlog import Recorder
except ImportError as error:
    print(error, flush=True)
'''
for _ in range(2):
    interpreters.run_string(interpreters.create(), code)
from foundry_fastlog import Recorder
"""
    done = run_python(code, timeout=60)
    assert done.stdout.count("in the main interpreter only") == 2
