"""The native core: ring, flush thread and hot calls. Use it through `foundry_fastlog.Recorder`."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, SupportsIndex, TypeAlias, TypedDict, TypeVar

from typing_extensions import Self

_F = TypeVar("_F", bound=Callable[..., Any])

class StreamStats(TypedDict):
    """Per-stream figures of `RecorderStats`."""

    written: int
    bytes: int
    dropped: int
    segments: int

class DeviceStats(TypedDict):
    """Device values in `RecorderStats`. The error is shared by the whole process."""

    scalars: int
    waiting: int
    missing: int
    error: str | None

class RecorderStats(TypedDict):
    """What `Recorder.stats()` returns, which documents the units."""

    calls: int
    accepted: int
    dropped: int
    written: int
    bytes_written: int
    blocked_s: float
    record_ns: float
    timer_ns: float
    record_calls: int
    timer_calls: int
    event_calls: int
    logging_s: float
    overhead_fraction: float
    wall_s: float
    flush_cpu_s: float
    ring_bytes: int
    ring_path: str | None
    ring_high_water_bytes: int
    errors: int
    first_error: str | None
    last_error: str | None
    key_sets: int
    left_out: int
    streams: dict[str, StreamStats]
    device: DeviceStats

class RecoveryReport(TypedDict):
    """What `recover_run()` did with one ring file.

    `outcome` is one of live, recovered, quarantined, elsewhere, failed, gone.
    """

    outcome: str
    ring: str
    label: str
    reason: str
    same_boot: bool
    emitted: int
    skipped: int
    holes: int
    hole_bytes: int
    damaged: int
    cut_bytes: int

class Writing(TypedDict):
    """How much of its files a live writer has marked as complete.

    `streams` has, per stream, the segment being written, its size, and an earlier segment with its
    size if the rest of that segment was moved to a later one. `files` has, per stream, the device
    and inode of its last segments; 0 and 0 for a segment about to be created.
    """

    label: str
    stamp: str
    streams: list[tuple[int, int, tuple[int, int] | None]]
    files: list[dict[int, tuple[int, int]]]

#: Ranges to keep, the bytes that follow them, and whether the file is removed.
_Change: TypeAlias = tuple[tuple[tuple[int, int], ...], bytes, bool]

class RingView(TypedDict):
    """What `view_ring()` found.

    `report` says what recovery would do. `edits` has the changes it would make, by file name.
    `epoch` is the last commit of a dead ring. `at_work` is True while a recovery holds the ring.
    """

    report: RecoveryReport
    epoch: int | None
    edits: dict[str, _Change]
    writing: Writing | None
    at_work: bool

class RecorderClosedError(RuntimeError):
    """Raised when recording on a closed Recorder."""

class Timer:
    """Times a block of code; made by `Recorder.timer()`."""

    @property
    def name(self) -> str: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    def __call__(self, function: _F, /) -> _F: ...

class TimedBlock:
    """One execution of a block of code; made by `PerformanceLogger.time_block()`."""

    @property
    def name(self) -> str: ...
    @property
    def elapsed(self) -> float: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    def __call__(self, function: _F, /) -> _F: ...

class Durations:
    """Durations in seconds: statistics of all, and the latest of them."""

    def __init__(self, most: int, /) -> None: ...
    def add(self, seconds: float, /) -> None: ...
    def describe(self) -> dict[str, Any]: ...
    def latest(self) -> list[float]: ...

class BlockTimer:
    """The native half of `foundry_fastlog.PerformanceLogger`."""

    def _settle(self) -> None: ...
    def _open(
        self,
        recorder: RecorderCore | None,
        series: dict[str, Durations],
        enabled: Mapping[int, bool],
        untimed: object,
        /,
    ) -> None: ...
    def time_block(
        self,
        block_name: str,
        log_level: int | str = 10,
        *,
        step: SupportsIndex | None = None,
        device: object = None,
    ) -> TimedBlock:
        """Time a block of code, as a context manager or a decorator.

        Args:
            block_name: The block's name.
            log_level: Level, or its name, of the message ``"<name> completed in 0.0234s"``.
            step: The training step. Default: that of the enclosing block.
            device: True or a device also times the block on the GPU, without waiting for it: the
                line gets ``device_duration_s``. See ``Recorder.timer``.

        Returns:
            The block; its ``elapsed`` holds the seconds afterwards.

        Raises:
            TypeError: ``block_name`` is not a str, or ``step`` not an int.
        """

class StepLogger:
    """The native half of `foundry_fastlog.MetricsLogger`."""

    def _open_steps(
        self, recorder: RecorderCore, enabled: Mapping[int, bool], every: int, /
    ) -> None: ...
    def _record_step(
        self, step: SupportsIndex, epoch: float | None, metrics: Mapping[Any, object]
    ) -> bool: ...
    def log_step(
        self, step: SupportsIndex, epoch: float | None, metrics: Mapping[Any, object]
    ) -> bool:
        """Record the metrics of a training step.

        Args:
            step: The training step.
            epoch: The epoch; None omits it.
            metrics: Values by name: float, int, bool, None, str, numpy scalars, arrays and tensors
                of one element. A GPU tensor is not waited for: its value is
                written to its step's line once it arrives. (The echo shows its device.)

        Returns:
            True when it was recorded, False when the ring was full or the recorder is closed.

        Raises:
            RuntimeError: A GPU value was passed while a stream is being captured into a graph.
            TypeError: ``step`` is not an int, ``epoch`` not a number or ``metrics`` not a mapping;
                with ``on_bad_value="raise"``, a value cannot be recorded.
            OverflowError: A step beyond 64 bits.
        """

def begin_span() -> int: ...
def end_span(begin: int, /) -> None: ...

class RecorderCore:
    """The native half of `foundry_fastlog.Recorder`."""

    def __init__(
        self,
        *,
        directory: bytes,
        stamp: str,
        label: str,
        worker: bool,
        ring_bytes: int,
        block: bool,
        block_timeout_s: float,
        flush_interval_s: float,
        segment_bytes: int,
        overhead_budget: float,
        rank: int,
        ring: str,
        fsync: str,
        fsync_interval_s: float,
        device_timeout_s: float,
        watch_nonfinite: str,
        on_bad_value: str,
        hook: Callable[[str, str | None, str | None], None],
    ) -> None: ...
    def record(self, step: SupportsIndex, /, **values: object) -> bool:
        """Record the metrics of one training step.

        Args:
            step: The training step, an int (any object with __index__) within 64 bits.
            **values: Metrics by name: float, int (64 bits), bool, None, str, a numpy scalar, or an
                array or tensor of one element, also on a GPU. ``epoch`` becomes a separate field
                beside ``step``. An integer from 2**63 to 2**64 - 1 becomes a float; pass its str()
                to keep all digits.

        Returns:
            True when the record was accepted, False when it was dropped (see ``back_pressure``).

        Raises:
            TypeError: A value has an unsupported type; the message names key and type. Nothing is
                written.
            OverflowError: An int beyond 64 bits.
            RecorderClosedError: The recorder has been closed.
        """
    def record_dict(self, step: SupportsIndex, metrics: Mapping[str, object]) -> bool:
        """Record a mapping of metrics; the same as ``record(step, **metrics)`` for keys of any text.

        Args:
            step: The training step.
            metrics: Mapping from names (str) to values, see ``record``.

        Returns:
            True when the record was accepted, False when it was dropped.

        Raises:
            TypeError: ``metrics`` is not a mapping, or a name or value cannot be recorded.
            OverflowError: An int beyond 64 bits.
            RecorderClosedError: The recorder has been closed.
        """  # noqa: E501 - as the method's
    def _summary_fitting(
        self, epoch: float, values: Mapping[str, object], tolerant: bool = False
    ) -> bool: ...
    def log(
        self,
        data: Mapping[Any, object],
        step: SupportsIndex | None = None,
        commit: bool | None = None,
    ) -> bool:
        """Record a mapping of metrics, with the same arguments as ``wandb.log``.

        Args:
            data: Mapping from names to values, see ``record``; nested dicts become ``outer.inner``.
            step: The training step. Default: the last recorded one plus 1, or 0.
            commit: False if the next call without a step belongs to the same step. The line is
                written in any case; a step may have several.

        A value that ``record`` rejects (a list, an image) is left out: null in its line, named in
        ``missing`` and counted in ``stats()["left_out"]``. ``on_bad_value`` of ``Recorder`` says
        whether one warning per name tells of it (the default), or nothing does, or whether it is
        raised. The other values are not affected. A name that is not a str becomes its text, of two
        equal names the last one counts, and texts that are too long for the ring are truncated.

        Returns:
            True when the record was accepted, False when it was dropped.

        Raises:
            TypeError: ``data`` is not a mapping, ``step`` not an int or ``commit`` not a bool. With
                ``on_bad_value="raise"``, also as ``record``.
            ValueError: With ``on_bad_value="raise"``: two names become equal, as in
                ``{"a": {"b": 1}, "a.b": 2}``.
            OverflowError: A step beyond 64 bits.
            RuntimeError: A GPU value was passed while a stream is being captured into a graph.
            RecorderClosedError: The recorder has been closed.
        """
    def timer(
        self, name: str, *, step: SupportsIndex | None = None, device: object = None
    ) -> Timer:
        """Time a block of code, as a context manager or a decorator.

        Blocks nest per thread and asyncio task: each line has its depth and its parent, and a block
        without its own step takes the step of the enclosing block. The object may be kept and
        entered repeatedly, also recursively and by several threads.

        Args:
            name: The block's name.
            step: The training step it belongs to.
            device: True also times the block on the current CUDA device, by a pair of events on its
                current stream and without waiting for it: the line gets ``device`` and
                ``device_duration_s``, null if a stream is being captured into a graph at its begin
                or end. A torch.device, its name or an index selects another device. If CUDA is not
                in use, only the wall-clock time is recorded.

        Returns:
            The timer; ``with recorder.timer("forward"): ...`` or ``@recorder.timer("load")``.

        Raises:
            TypeError: ``name`` is not a str, ``step`` not an int or ``device`` not a device (on
                entering).
            RecorderClosedError: On entering a block after the recorder was closed.
        """
    def _continue_from(self, step: int, /) -> None: ...
    def _last_step(self) -> int: ...
    def _fragment(self, stream: int, members: bytes, /) -> bool: ...
    def _flush(self, timeout_s: float) -> bool: ...
    def _flush_stream(self, stream: int, timeout_s: float) -> bool: ...
    def _close(self, timeout_s: float) -> bool: ...
    def _stats(self) -> RecorderStats: ...
    def _files(self) -> list[str]: ...
    @property
    def _label(self) -> str | None: ...
    @property
    def _directory(self) -> tuple[int, int]: ...
    @property
    def _remedy(self) -> str: ...
    @property
    def _largest_fragment(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def _opened(self) -> bool: ...

def deliver(slots: list[int], values: list[Any]) -> None: ...
def prepare_device(device_type: int, index: int) -> None: ...
def ask_relaxed(device_type: int, function: Callable[[], Any]) -> Any: ...  # noqa: ANN401 - its result
def refuse_captured(scalars: list[Any]) -> None: ...
def metric_value(name: object, value: object) -> float | int | bool | str | None: ...
def set_decorate(function: Callable[[Timer, Callable[..., Any]], Callable[..., Any]]) -> None: ...
def add_hot_methods(recorder_type: type[RecorderCore]) -> None: ...
def recover_run(run_directory: str | bytes, timeout_s: float = ...) -> list[RecoveryReport]: ...
def view_ring(
    run_directory: bytes,
    path: bytes,
    before: Mapping[str, _Change],
    most_bytes: int = ...,
    most_ranges: int = ...,
) -> RingView: ...
def live_writers(run_directory: bytes) -> list[tuple[str, str, int]]: ...
def dead_ring_epoch(ring: bytes) -> int | None: ...
def held_ring_epochs(rings: list[bytes]) -> list[int | None]: ...

#: Stream, rank, start, label, whether only what counts is wanted, from which step and epoch later
#: starts took over by name, per segment its path, kept ranges, what follows them, and what reads
#: it from an offset on into a buffer (bytes, or -errno), and whether it is compressed now: else
#: that is for a file that was compressed before it is read; and the number and step of lines that
#: tell of a rewind and are not among those.
_Source: TypeAlias = tuple[
    int,
    int,
    int,
    str,
    bool,
    dict[str, tuple[int | None, float | None]] | None,
    list[
        tuple[
            bytes,
            tuple[tuple[int, int], ...] | None,
            bytes,
            Callable[[int, memoryview], int] | None,
            bool,
        ]
    ],
    list[tuple[int, int]],
]

#: Source, segment, lines, runs of seq (first, count, line), damaged lines (line, offset, size),
#: drops, bytes behind the last newline, and the system's error.
_Account: TypeAlias = tuple[
    int, int, int, list[tuple[int, int, int]], list[tuple[int, int, int]], list[int], int, int
]

#: Rows, nulls, validity, values or offsets, and text.
_ColumnPart: TypeAlias = tuple[int, int, FrameBuffer | None, FrameBuffer | None, FrameBuffer | None]

class FrameBuffer:
    """A buffer of a column, as Arrow has it; numpy takes it as it is."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

class Frame:
    """The rows of a stream as columns."""

    @property
    def rows(self) -> int: ...
    @property
    def schema(self) -> list[tuple[str, str]]: ...
    @property
    def left_out(self) -> dict[str, int]: ...
    def batches(self) -> list[list[_ColumnPart]]: ...
    def arrow_schema(self) -> object: ...
    def arrow_stream(self) -> object: ...

class Scan:
    """What was read of a run's files."""

    def __init__(
        self,
        sources: list[_Source],
        *,
        patterns: list[str] = ...,
        all_names: bool = True,
        exact: bool = False,
        seqs: bool = True,
        first_step: int = ...,
        last_step: int = ...,
        rows: bool = True,
        list_names: bool = False,
        note_steps: bool = False,
        note_firsts: bool = False,
        threads: int = 0,
        part_bytes: int = ...,
    ) -> None: ...
    def accounts(self) -> list[_Account]: ...
    def names(self, source: int) -> list[tuple[str, int]]: ...
    def steps(self) -> list[tuple[int, int]]: ...
    def firsts(self) -> list[tuple[str, int | None, float | None]]: ...
    def frame(self, stream: int) -> Frame: ...

class Lines:
    """The lines of several sources, merged by time."""

    def __init__(
        self, sources: list[_Source], asked: list[tuple[int | None, float | None]]
    ) -> None: ...
    def next(self) -> tuple[list[bytes], list[int], list[int]] | None: ...
    def accounts(self) -> list[_Account]: ...

class Pyramids:
    """Curves of metrics at all scales."""

    def __init__(self, several_ranks: bool, size: int, most: int, least: int) -> None: ...
    def add(self, frame: Frame) -> None: ...
    def draw(
        self, ranks: list[int], name: str, first: int, last: int, points: int
    ) -> tuple[int, bytes, bool, int, int]: ...
    def dump(self) -> list[tuple[int, str, int, bytes]]: ...
    def load(self, rank: int, name: str, level: int, buckets: bytes | memoryview) -> bool: ...

#: A value, and whether it is JSON text.
_Value: TypeAlias = tuple[Any, bool]

class _MetricSum(TypedDict):
    """One metric; `mean` means nothing without numbers, nor do `min` and `max`."""

    name: str
    count: int
    numbers: int
    nonfinite: int
    first: _Value
    last: _Value
    min: _Value
    min_step: int | None
    max: _Value
    max_step: int | None
    mean: float
    curve: list[tuple[float, float]]
    missing: list[tuple[str, int]]
    place: tuple[int, int, int, int]

class _TimerSum(TypedDict):
    """One timer; `ascending` has its durations, or a sample of them."""

    name: str
    count: int
    errors: int
    max: float
    total: float
    ascending: list[float]
    in_step: float
    missing: list[tuple[str, int]]

class Statistics:
    """A stream, summed up."""

    def __init__(
        self, sources: list[_Source], *, stream: int, first: list[str], threads: int = 0
    ) -> None: ...
    def accounts(self) -> list[_Account]: ...
    def metrics(self) -> list[_MetricSum]: ...
    def summaries(self) -> list[_MetricSum]: ...
    def timers(self) -> list[_TimerSum]: ...
    def left_out(self) -> dict[str, int]: ...
    def sources(self) -> list[tuple[str, str, str, int | None, int | None]]: ...
