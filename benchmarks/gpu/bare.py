"""Bare asynchronous copies through the driver, in a C loop: the floor for the cost per scalar."""

from __future__ import annotations

import ctypes
import os
import shlex
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("bare_copy.c")
DRIVER = "libcuda.so.1"
SLOT_BYTES = 8


class BareCopyError(RuntimeError):
    """The C helper could not be built, or a driver call failed; the message has the code."""


def build(directory: Path, source: Path = SOURCE) -> Path:
    """Compile a C helper with `CC`, or `cc`, into `directory`.

    Raises:
        BareCopyError: The compiler failed; the message has its output.
    """
    target = directory / f"{source.stem}.so"
    command = [*shlex.split(os.environ.get("CC") or "cc"), "-O2", "-fPIC", "-shared", "-Wall"]
    command += [str(source), "-o", str(target), "-ldl"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BareCopyError(f"{shlex.join(command)} failed:\n{done.stderr}")
    return target


class BareCopies:
    """The loaded helper, with its own pinned memory and events.

    A CUDA context must be current in the calling thread; torch's is, once the thread has used the
    device.
    """

    def __init__(self, directory: Path, *, driver: bool) -> None:
        """Build and open.

        Args:
            directory: Where the shared object goes.
            driver: False for stubs that copy host memory.

        Raises:
            BareCopyError: It cannot be built or opened.
        """
        self._library = ctypes.CDLL(str(build(directory)))
        self._time = self._library.bare_time
        self._time.restype = ctypes.c_longlong
        self._time.argtypes = [
            ctypes.POINTER(ctypes.c_uint64),
            ctypes.POINTER(ctypes.c_int),
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_int,
        ]
        self._library.bare_open.argtypes = [ctypes.c_char_p]
        error = self._library.bare_open(DRIVER.encode() if driver else None)
        if error:
            raise BareCopyError(f"bare_open({DRIVER}) returned {error}")

    def time(self, pointers: Sequence[int], sizes: Sequence[int], stream: int, steps: int) -> float:
        """Repeat `steps` times: one copy from each pointer and one event record.

        Args:
            pointers: Device addresses.
            sizes: Bytes of each value, at most 8.
            stream: The stream's handle; 0 is the default stream.
            steps: Repetitions.

        Returns:
            Nanoseconds for one repetition.

        Raises:
            BareCopyError: A driver call failed.
        """
        addresses = (ctypes.c_uint64 * len(pointers))(*pointers)
        bytes_of = (ctypes.c_int * len(sizes))(*sizes)
        spent = self._time(addresses, bytes_of, len(pointers), stream, steps)
        if spent < 0:
            raise BareCopyError(f"the driver returned {-spent}")
        return float(spent) / steps

    def last(self, count: int) -> list[bytes]:
        """Return the last values that arrived, eight bytes each; synchronise first."""
        buffer = ctypes.create_string_buffer(count * SLOT_BYTES)
        self._library.bare_last(buffer, count)
        return [buffer.raw[i * SLOT_BYTES : (i + 1) * SLOT_BYTES] for i in range(count)]

    def last_floats(self, count: int) -> list[float]:
        """Return the last values that arrived, as float32; synchronise first."""
        return [struct.unpack_from("f", raw)[0] for raw in self.last(count)]
