"""What all adapters share: who records, when the run is opened, and that training goes on."""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base.arguments import absolute, check_directory
from foundry_fastlog.base.error_marks import is_recorded, mark_recorded
from foundry_fastlog.integrations.notices import Notices
from foundry_fastlog.recording.recorder import Recorder, RecorderClosedError, recorder_of
from foundry_fastlog.recording.sharing import acquire, release
from foundry_fastlog.run.info import plain_config

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Adapter", "Adapting"]

_log = logging.getLogger("foundry_fastlog")

_adapters: weakref.WeakSet[Adapter] = weakref.WeakSet()
# The newest step that a trainer recorded, which a later trainer in this process may go behind.
_newest: weakref.WeakKeyDictionary[Recorder, int] = weakref.WeakKeyDictionary()

# What was asked for is not possible; anything else may pass.
_WRONG_CALL = (FileExistsError, FileNotFoundError, NotADirectoryError)
_OPTIONS = frozenset(inspect.signature(Recorder).parameters)


class Adapter:
    """A trainer's way to its run: opened at the first use, and never in the trainer's way.

    Attributes:
        run_dir: The run's directory.
        all_ranks: Whether processes beside the main one record, too.
        step: The newest step that was recorded, None before the first.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None,
        recorder: Recorder | None,
        *,
        logger: str,
        all_ranks: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Note what to open; nothing is written yet.

        Args:
            run_dir: The run's directory, unless a recorder is given.
            recorder: The recorder to use; whoever opened it closes it.
            logger: What messages name as their logger.
            all_ranks: Whether processes beside the main one record, too.
            options: Options for opening a recorder, see `Recorder`; its configuration is added to
                the trainer's.

        Raises:
            TypeError: Neither, or both, of directory and recorder, options with a recorder, or an
                option that is none: now, and not once the training begins.
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        if (run_dir is None) == (recorder is None):
            raise TypeError("pass either run_dir=, or recorder= of a run that is open")
        if recorder is not None and options:
            raise TypeError(f"a recorder that is open takes no options, got {', '.join(options)}")
        if unknown := set(options or {}) - _OPTIONS:
            raise TypeError(f"Recorder has no option {', '.join(sorted(unknown))}")
        self.run_dir = absolute(recorder.path if recorder is not None else run_dir or "")
        check_directory(self.run_dir)
        self.all_ranks = all_ranks
        self.step: int | None = None
        self._logger = logger
        self._given = recorder
        self._recorder: Recorder | None = None
        self._options = dict(options or {})
        self._config = plain_config(self._options.pop("config", None))
        self._notices = Notices()
        self._refused = False
        self._release: weakref.finalize[[Recorder], Adapter] | None = None
        _adapters.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a spawned process, which opens its part of the run itself."""
        run_dir = self.run_dir if self._given is None else None
        options = {**self._options, "config": self._config}
        known = (run_dir, self._given, self._logger, self.all_ranks, options if run_dir else {})
        return _reopened, known

    @property
    def recorder(self) -> Recorder | None:
        """The recorder, None before the run is opened and where this process does not record."""
        return self._recorder

    def open(self, config: Mapping[str, Any] | None = None, *, main: bool = True) -> bool:
        """Open the run, unless it is open or this process is none of those that record.

        Args:
            config: The run's configuration. A run that is open already gets it as a message.
            main: Whether this is the main process.

        Returns:
            Whether this process records.

        Raises:
            TypeError, ValueError: An option that is none.
            FileExistsError, FileNotFoundError: What ``resume=`` asks for is not there.
        """
        if self._recorder is None and (main or self.all_ranks) and not self._refused:
            config = self._open(config)
        if config:
            self.say("Configuration", config)
        return self._recorder is not None

    def _open(self, config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Open the run; return the configuration unless the run has taken it."""
        if self._given is not None:
            self._recorder = self._given
            return config
        found = recorder_of(self.run_dir, self._options.get("rank"))
        config = {**self._config, **(config or {})}
        try:
            self._recorder = acquire(self.run_dir, config=config, **self._options)
        except _WRONG_CALL:
            raise
        except (OSError, MemoryError, RuntimeError) as error:
            self._refused = True
            _log.warning("nothing is recorded in %s: %s", self.run_dir, error)
            return None
        # Not at exit: the recorder closes itself then, after everyone who still records.
        self._release = weakref.finalize(self, release, self._recorder)
        self._release.atexit = False
        return None if found is None else config

    def log(
        self, values: Mapping[str, Any], step: int | None = None, epoch: float | None = None
    ) -> None:
        """Record metrics of a step; what is no scalar is left out, as `Recorder.log` does.

        Args:
            values: Metrics by name; device scalars are not waited for.
            step: The training step; None for the one behind the last.
            epoch: The epoch, if one is known.
        """
        at = self._whole(step)

        def record(recorder: Recorder) -> None:
            if at is not None:
                self.step = at
                _newest[recorder] = max(at, _newest.get(recorder, at))
            recorder.log(values if epoch is None else {"epoch": epoch, **values}, step=at)

        self._attempt(record)

    def summarize(self, epoch: float, values: Mapping[str, Any]) -> None:
        """Record values of a whole epoch, or of the training up to it."""
        self._attempt(
            lambda recorder: recorder._summary(epoch, values, tolerant=True)  # noqa: SLF001 - as MetricsLogger
        )

    def say(
        self,
        message: str,
        context: Mapping[str, Any] | None = None,
        *,
        step: int | None = None,
        level: str = "INFO",
    ) -> None:
        """Record a message with fields, see `Recorder.event`."""
        self._attempt(
            lambda recorder: recorder.event(
                message, level=level, logger=self._logger, step=self._whole(step), context=context
            )
        )

    def timing(
        self, name: str, duration_s: float, step: int | None = None, parent: str | None = None
    ) -> None:
        """Record a block that was timed, see `Recorder.timing`."""
        self._attempt(lambda recorder: recorder.timing(name, duration_s, self._whole(step), parent))

    def train_from(self, step: int) -> None:
        """Note that training goes on behind a step: what was recorded of later ones is replaced."""
        recorder = self._recorder
        if recorder is not None and _newest.get(recorder, step) > step:
            self._attempt(lambda recorder: recorder.rewind(step + 1))
            _newest[recorder] = step

    def failed(self, error: BaseException, message: str = "Training failed") -> None:
        """Record the exception that ended the training, and that it ends the run."""
        recorder = self._recorder
        if recorder is None or recorder.closed:
            return
        if isinstance(error, Exception) and not is_recorded(error, recorder):
            mark_recorded(error, recorder)
            recorder.event(
                message,
                level="CRITICAL",
                logger=self._logger,
                error=error,
                step=self.step,
            )
        if self._given is None:
            recorder.ended_by(error)

    def recovered(self) -> None:
        """Take back what failed() said of the run's end: training went on."""
        if self._recorder is not None and self._given is None:
            self._recorder.ended_by(None)

    def renew(self) -> None:
        """Let the next use open the run again, as its next start, if this adapter has closed it."""
        if self._release is not None and not self._release.alive:
            self._recorder, self._release, self.step = None, None, None
            self._notices = Notices()

    def close(self) -> bool:
        """Write everything, and close the recorder unless others use it. Safe to call again.

        Returns:
            True when everything is written.
        """
        if self._recorder is None:
            return True
        written = None if self._release is None else self._release()
        return self._recorder.flush() if written is None else written

    def _attempt(self, record: Callable[[Recorder], object]) -> None:
        """Record; what cannot be is told once for each kind of error, and training goes on."""
        if self._recorder is None:
            return
        try:
            record(self._recorder)
        except RecorderClosedError:
            self._notices.tell(
                "closed",
                "not recorded in %s: it is closed. Close it after all that it is to record, or "
                "begin another with-block, which is the run's next start",
                self.run_dir,
            )
        except Exception as error:  # noqa: BLE001 - whatever a trainer hands on, and a device's
            kind = type(error).__name__
            self._notices.tell(kind, "not recorded in %s: %s: %s", self.run_dir, kind, error)

    def _whole(self, step: object) -> int | None:
        """Return a step as an int, of floats and tensors, too; one that is none is told."""
        if step is None or type(step) is int:
            return step
        try:
            return int(step)  # type: ignore[call-overload,no-any-return]
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            self._notices.tell(
                "step",
                "%r is no step: what has it is recorded behind the last one (%s)",
                step,
                error,
            )
            return None


class Adapting:
    """A trainer's logger or callback that has an adapter.

    As a context manager it records the exception that ends the block, and closes.
    """

    _adapter: Adapter

    @property
    def recorder(self) -> Recorder | None:
        """The run's recorder; None before training, and in processes that do not record."""
        return self._adapter.recorder

    def close(self) -> bool:
        """Write everything, and close the run unless others use it. Safe to call again.

        Without it the run is closed when the program ends.

        Returns:
            True when everything is written.
        """
        return self._adapter.close()

    def __enter__(self) -> Self:
        """Return the object itself; a second block is the run's next start."""
        self._adapter.renew()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record an exception that ends the training, and close; it propagates."""
        if exc is not None:
            self._adapter.failed(exc)
        self.close()


def _reopened(
    run_dir: str | None,
    recorder: Recorder | None,
    logger: str,
    all_ranks: bool,
    options: Mapping[str, Any],
) -> Adapter:
    return Adapter(run_dir, recorder, logger=logger, all_ranks=all_ranks, options=options)


def _note_uncaught() -> None:
    """Record what ended the program, before the recorders close."""
    interactive = sys.flags.interactive or hasattr(sys, "ps1")  # there it is that of a cell
    error = None if interactive else getattr(sys, "last_value", None)
    if error is not None:
        for adapter in list(_adapters):
            adapter.failed(error, "Program failed")


atexit.register(_note_uncaught)  # after the recorders' own, so it runs before
