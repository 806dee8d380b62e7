"""The files of a migration: finding, reading and writing them."""

from __future__ import annotations

import codecs
import io
import os
import tempfile
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from foundry_fastlog.migrate.model import FileReport, Options
from foundry_fastlog.migrate.notebook import migrate_notebook
from foundry_fastlog.migrate.source import migrate_source

__all__ = ["migrate_file", "migrate_paths", "python_files"]

# Folders in a project that contain no code of the project.
_FOREIGN = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})


_NOTEBOOK = ".ipynb"


def python_files(paths: Iterable[Path]) -> Iterator[Path]:
    """List files: the given files, and all ``*.py`` and ``*.ipynb`` below the given folders.

    Hidden folders, virtual environments, build outputs and links to folders are skipped below a
    folder.
    """
    seen: set[Path] = set()
    for path in paths:
        for found in _below(path) if path.is_dir() else [path]:
            resolved = found.resolve()
            if resolved not in seen:
                seen.add(resolved)
                yield found


def _below(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder):
        here = Path(directory)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _FOREIGN
            and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in sorted(files) if name.endswith((".py", _NOTEBOOK)))


def _decode(raw: bytes, *, is_source: bool) -> tuple[str, str, bytes]:
    """Return the text of a file, its encoding, and its byte order mark."""
    mark = codecs.BOM_UTF8 if raw.startswith(codecs.BOM_UTF8) else b""
    encoding = "utf-8"
    if is_source:
        encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0].removesuffix("-sig")
    return raw[len(mark) :].decode(encoding), encoding, mark


def migrate_file(path: Path, options: Options, *, write: bool = False) -> FileReport:
    """Migrate one file: a module or, if its name ends in ``.ipynb``, a notebook.

    Args:
        path: The file.
        options: How to convert.
        write: Replace the file with the result; otherwise only report it.

    Returns:
        The findings. If the file cannot be read or written, `error` is set.
    """
    report = FileReport(str(path))
    is_notebook = path.suffix == _NOTEBOOK
    try:
        text, encoding, mark = _decode(path.read_bytes(), is_source=not is_notebook)
    except OSError as error:
        report.error = f"cannot be read: {error.strerror or error}"
        return report
    except (SyntaxError, UnicodeDecodeError) as error:
        report.error = f"cannot be decoded: {error}"
        return report
    report = (migrate_notebook if is_notebook else migrate_source)(text, options, str(path))
    if write and report.error is None and report.result != text:
        try:
            _replace(path.resolve(), mark + report.result.encode(encoding))
        except OSError as error:
            report.error = f"cannot be written: {error.strerror or error}"
    return report


def _replace(path: Path, data: bytes) -> None:
    """Replace a file's contents atomically, or leave it unchanged."""
    mode = path.stat().st_mode
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "Permission denied")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.chmod(mode & 0o7777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def migrate_paths(
    paths: Iterable[Path], options: Options, *, write: bool = False
) -> Iterator[FileReport]:
    """Migrate files and folders, one after the other; see `python_files`."""
    for path in python_files(paths):
        yield migrate_file(path, options, write=write)
