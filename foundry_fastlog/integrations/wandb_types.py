"""The types of wandb's interface: media, artifacts, configuration, summary."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from enum import Enum
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.kept import Kept, described, size_of
from foundry_fastlog.run.info import plain_config

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "MEDIA",
    "AlertLevel",
    "Artifact",
    "CommError",
    "Config",
    "Error",
    "Media",
    "Metric",
    "Plots",
    "Settings",
    "Summary",
    "Table",
    "UsageError",
]


class Error(Exception):
    """What wandb raises."""


class CommError(Error):
    """Never raised: nothing is sent."""


class UsageError(Error):
    """Something was called before `init()`."""


class AlertLevel(Enum):
    """How urgent an alert is."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class Settings:
    """Settings of wandb: kept as attributes, and without an effect."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - any setting
        self.__dict__.update(settings)


class Metric:
    """What `define_metric` returns."""

    def __init__(self, name: str, **how: Any) -> None:  # noqa: ANN401 - as wandb's
        self.name = name
        self.__dict__.update(how)


class Media(Kept):
    """A value that is no scalar: its class and size are recorded, its content is not.

    Args:
        data: The content.
        *_: Whatever else its class takes.
        **__: Likewise.
    """

    def __init__(self, data: object = None, *_: object, **__: object) -> None:
        self._size = size_of(data) if not isinstance(data, (str, os.PathLike)) else ""

    @classmethod
    def from_data(cls, data: object = None, *_: object, **__: object) -> Self:
        """Make one of a file, of numbers or of a molecule."""
        return cls(data)

    from_file = from_numpy = from_point_cloud = from_smiles = from_rdkit = from_data

    def __str__(self) -> str:
        name = type(self).__name__
        return f"{name} of {self._size}" if self._size else name


class Table(Media):
    """A table: its size is recorded, its rows are not.

    Args:
        columns: Names of the columns.
        data: Rows.
        dataframe: A frame of pandas, instead of both.
        **_: Whatever else wandb's takes.
    """

    def __init__(
        self,
        columns: list[Any] | None = None,
        data: Any = None,  # noqa: ANN401 - rows of any kind
        dataframe: Any = None,  # noqa: ANN401 - of pandas
        **_: object,
    ) -> None:
        super().__init__()
        if dataframe is not None:
            columns, data = list(dataframe.columns), dataframe.to_numpy().tolist()
        self.columns = list(columns) if columns is not None else ["Input", "Output", "Expected"]
        self.data = [list(row) for row in data] if data is not None else []

    def add_data(self, *row: Any) -> None:  # noqa: ANN401 - cells
        """Add a row."""
        self.data.append(list(row))

    add_row = add_data  # its former name

    def get_column(self, name: str, convert_to: str | None = None) -> Any:  # noqa: ANN401 - a list, or an array
        """Return a column's cells, as an array if `convert_to` is ``numpy``."""
        at = self.columns.index(name)
        cells = [row[at] for row in self.data]
        if convert_to != "numpy":
            return cells
        import numpy as np

        return np.array(cells)

    def get_index(self) -> list[int]:
        """Return the rows' numbers."""
        return list(range(len(self.data)))

    def iterrows(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield each row with its number."""
        yield from enumerate(self.data)

    def get_dataframe(self) -> Any:  # noqa: ANN401 - pandas may not be installed
        """Return a frame of pandas."""
        with extra("pandas", "pandas"):
            import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return pd.DataFrame(self.data, columns=self.columns)

    def add_computed_columns(self, fn: Callable[[int, dict[Any, Any]], Mapping[str, Any]]) -> None:
        """Add columns that a function computes from each row."""
        rows = [
            fn(at, dict(zip(self.columns, row, strict=False))) for at, row in enumerate(self.data)
        ]
        for name in dict.fromkeys(name for row in rows for name in row):
            self.add_column(name, [row.get(name) for row in rows])

    def add_column(self, name: str, data: Any) -> None:  # noqa: ANN401 - cells
        """Add a column."""
        cells = list(data)
        self.columns.append(name)
        self.data = self.data or [[] for _ in cells]
        for row, cell in zip(self.data, cells, strict=False):
            row.append(cell)

    def __str__(self) -> str:
        return f"Table of {len(self.data)} rows: {', '.join(map(str, self.columns))}"[:500]


#: The media of wandb, by name.
MEDIA: dict[str, type[Media]] = {
    **{
        name: type(name, (Media,), {"__doc__": Media.__doc__, "__module__": __name__})
        for name in (
            *("Audio", "Graph", "Histogram", "Html", "Image", "Molecule", "Object3D", "Plotly"),
            *("Video", "JoinedTable", "Classes", "box3d"),
        )
    },
    "Table": Table,
    "EvalTable": Table,
}


def __getattr__(name: str) -> type[Media]:
    """Return a class of media, which pickle looks for here."""
    if name in MEDIA:
        return MEDIA[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Plots:
    """`wandb.plot`: each of its functions gives a value whose name alone is recorded."""

    def __getattr__(self, name: str) -> Callable[..., Media]:
        """Return a plot's maker."""
        if name.startswith("__"):
            raise AttributeError(name)
        kind = type(name, (Media,), {"__module__": __name__})
        return lambda *_, **__: kind()


class Artifact:
    """Files with a name: these two and the kind are recorded, the files stay where they are.

    Args:
        name: Its name.
        type: Its kind.
        description: What it is.
        metadata: Facts about it.
        **_: Whatever else wandb's takes.
    """

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 - as wandb's
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        **_: object,
    ) -> None:
        self.name, self.type, self.description = name, type, description
        self.metadata = metadata or {}
        self.files: list[str] = []
        self.version, self.aliases, self.ttl = "v0", ["latest"], None

    def add_file(self, local_path: str, name: str | None = None, **_: object) -> None:
        """Name a file."""
        self.files.append(f"{name} ({local_path})" if name else str(local_path))

    def add_dir(self, local_path: str, name: str | None = None, **_: object) -> None:
        """Name a directory."""
        self.add_file(local_path, name)

    def add_reference(self, uri: object, name: str | None = None, **_: object) -> None:
        """Name an address."""
        self.add_file(str(uri), name)

    def add(self, obj: object, name: str) -> object:
        """Name a value."""
        self.files.append(f"{name} ({obj})")
        return obj

    def new_file(self, name: str, mode: str = "w", **_: object) -> IO[Any]:
        """Name a file whose content is not kept."""
        self.files.append(f"{name} (not kept)")
        return open(os.devnull, mode)  # noqa: PTH123 - the caller's

    def wait(self, *_: object) -> Artifact:
        """Return at once: nothing is sent."""
        return self

    save = wait

    def finalize(self) -> None:
        """Do nothing: what it names is recorded when it is logged."""


def _unbound(_: object) -> None:
    """Take what is set in a copy."""


class _Named(MutableMapping[str, Any]):
    """Values by item or by attribute; whatever is set is passed on.

    Args:
        values: What there is.
        changed: Called with what is set.
    """

    def __init__(
        self, values: Mapping[str, Any], changed: Callable[[dict[str, Any]], object]
    ) -> None:
        self.__dict__["_values"] = dict(values)
        self.__dict__["_changed"] = changed

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - any value
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401 - any value
        self._set({name: value})

    def __delitem__(self, name: str) -> None:
        del self._values[name]  # what is recorded stays

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, or copy, as values of their own: those in a checkpoint belong to no run."""
        return type(self), (dict(self._values), _unbound)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any value
        """Return a value."""
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(
                f"there is no {name!r} in the run's {type(self).__name__}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - any value
        """Set a value."""
        self._set({name: value})

    def __repr__(self) -> str:
        return str(self._values)

    def _set(self, values: dict[str, Any]) -> None:
        if values:
            self._values.update(values)
            self._changed(values)

    def as_dict(self) -> dict[str, Any]:
        """Return all as a dict."""
        return dict(self._values)

    _as_dict = as_dict  # scripts call it


class Config(_Named):
    """The configuration of a run."""

    def update(self, d: object = None, /, allow_val_change: object = None, **more: Any) -> None:  # noqa: ANN401 - as wandb's
        """Add settings, or change them: a mapping, a namespace, or a configuration object."""
        self._set({**plain_config(d), **more})

    def setdefaults(self, d: object) -> None:
        """Add those that are not there yet."""
        self._set({name: one for name, one in plain_config(d).items() if name not in self})

    def persist(self) -> None:
        """Do nothing: what is set is written at once."""


class Summary(_Named):
    """The last value of each metric of a run, and what was set."""

    def update(self, d: Mapping[str, Any] | None = None, /, **more: Any) -> None:  # type: ignore[override]  # noqa: ANN401 - any values
        """Set values."""
        self._set({**(d or {}), **more})

    def define(self, name: str, how: str) -> None:
        """Note how the metrics that a pattern matches are summarised: as `min`, `max`, ..."""
        self.__dict__.setdefault("_rules", {})[name] = [one.strip() for one in how.split(",")]

    def note(self, values: Mapping[str, Any]) -> None:
        """Take in what was logged."""
        rules: dict[str, list[str]] = self.__dict__.get("_rules", {})
        for name, value in values.items():
            how = next((rules[one] for one in rules if fnmatchcase(str(name), one)), [])
            figure = _figure(value) if how else value
            if not how or not isinstance(figure, (int, float)):
                self._values[name] = _figure(value)
            elif "none" not in how:
                seen = self.__dict__.setdefault("_seen", {}).setdefault(name, _Seen())
                self._values[name] = seen.taken(figure, how)


class _Seen:
    """What a metric was so far."""

    def __init__(self) -> None:
        self._count, self._sum = 0, 0.0
        self._least = self._most = self._first = math.nan

    def taken(self, value: float, how: list[str]) -> dict[str, float]:
        """Take in a value; return the figures that are asked for, by their names."""
        if not math.isnan(value):
            self._first = value if not self._count else self._first
            self._least = min(value, self._least) if self._count else value
            self._most = max(value, self._most) if self._count else value
            self._count, self._sum = self._count + 1, self._sum + value
        known = {"min": self._least, "max": self._most, "first": self._first, "last": value}
        known["mean"] = self._sum / max(1, self._count)
        known["best"] = self._least
        return {name: known[name] for name in how if name in known}


def _figure(value: Any) -> Any:  # noqa: ANN401 - any value
    """Return a value's number where it has one on the CPU: a summary keeps no graph of a tensor."""
    if isinstance(value, Mapping):
        return {name: _figure(one) for name, one in value.items()}
    if callable(detach := getattr(value, "detach", None)):
        value = detach()
        if getattr(value.device, "type", "") != "cpu":
            return value  # reading it would wait for the device
    return value.item() if hasattr(value, "item") and described(value) is None else value
