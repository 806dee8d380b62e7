"""Build the fake driver and the fake tensors, and drive them from tests.

`fake_cuda.c` imitates the CUDA driver (or with another name for everything, HIP's) and
`fake_tensor.py` what torch's tensors show, so that the path of a device scalar runs on machines
without a GPU. The recorder finds the driver by FASTLOG_CUDA_LIBRARY, and this module loads the same
file: both then talk to one instance.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import importlib.util
import math
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from ctypes import POINTER, c_float, c_int, c_long, c_size_t, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
BUILT = HERE.parents[1] / "build" / "test-device"
DRIVER_SOURCES = ("fake_cuda.c", "fake_machine.c")
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror")

CPU, CUDA, MPS, ROCM, XPU = 1, 2, 8, 10, 14  # device types of DLPack
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2  # modes of capture
INVALID_VALUE, NOT_INITIALIZED, INVALID_CONTEXT, INVALID_HANDLE, NOT_READY = 1, 3, 201, 400, 600
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_IMPLICIT, CAPTURED_EVENT = 900, 901, 906, 907
ILLEGAL_ADDRESS = 700
DISABLE_TIMING = 2  # flag of an event
POISON = 0xDB

# ---- building ------------------------------------------------------------------------------------


def compiler() -> str:
    """Return the C compiler; one builds the package, so there is one."""
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    assert found is not None, "no C compiler"
    return found


def compile_c(name: str, sources: tuple[str, ...], *flags: str) -> Path:
    """Compile sources of this folder to `name`, unless the same bytes were compiled before."""
    digest = hashlib.sha256(repr((compiler(), sources, flags)).encode())
    for path in sorted(HERE.glob("*.[ch]")):
        digest.update(path.read_bytes())
    target = BUILT / digest.hexdigest()[:16] / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: another process may build the same at this moment.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / name
            paths = [str(HERE / source) for source in sources]
            subprocess.run([compiler(), *WARNINGS, *flags, "-o", made, *paths], check=True)
            made.replace(target)
    return target


def build_driver(*, hip: bool = False) -> Path:
    flags = ["-O1", "-g", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"]
    flags += ["-DFAKE_HIP"] if hip else []
    return compile_c("libfake_hip.so" if hip else "libfake_cuda.so", DRIVER_SOURCES, *flags)


def build_exports() -> Path:
    include = sysconfig.get_path("include")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    flags = ("-O1", "-g", "-shared", "-fPIC", f"-I{include}")
    if sys.platform == "darwin":
        flags = (*flags, "-undefined", "dynamic_lookup")
    return compile_c(f"fake_exports{suffix}", ("fake_exports.c",), *flags)


def load_exports() -> ModuleType:
    """Build and import what fake_tensor.py, which alone does so, needs of C."""
    spec = importlib.util.spec_from_file_location("fake_exports", build_exports())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_tensors() -> ModuleType:
    """Build and import the fake tensors; any thread may be the first."""
    return importlib.import_module("device.fake_tensor")


@functools.cache
def load_driver(*, hip: bool = False) -> FakeDriver:
    """Build and load the driver; a process has one of each kind."""
    return FakeDriver(build_driver(hip=hip), hip=hip)


# ---- values and their bits -----------------------------------------------------------------------

# name: DLPack's code, bits, format of `struct` or None, name in torch
DTYPES: dict[str, tuple[int, int, str | None, str]] = {
    "i8": (0, 8, "b", "int8"),
    "i16": (0, 16, "h", "int16"),
    "i32": (0, 32, "i", "int32"),
    "i64": (0, 64, "q", "int64"),
    "u8": (1, 8, "B", "uint8"),
    "u16": (1, 16, "H", "uint16"),
    "u32": (1, 32, "I", "uint32"),
    "u64": (1, 64, "Q", "uint64"),
    "fp16": (2, 16, "e", "float16"),
    "fp32": (2, 32, "f", "float32"),
    "fp64": (2, 64, "d", "float64"),
    "bf16": (4, 16, None, "bfloat16"),
    "complex64": (5, 64, None, "complex64"),
    "bool": (6, 8, "?", "bool"),
    "fp8_e4m3fn": (10, 8, None, "float8_e4m3fn"),
    "fp8_e4m3fnuz": (11, 8, None, "float8_e4m3fnuz"),
    "fp8_e5m2": (12, 8, None, "float8_e5m2"),
    "fp8_e5m2fnuz": (13, 8, None, "float8_e5m2fnuz"),
    "fp8_e8m0fnu": (14, 8, None, "float8_e8m0fnu"),
    "fp4": (17, 4, None, "float4_e2m1fn_x2"),
}
# fp8: bits of the fraction, bias
EIGHT_BITS = {"fp8_e4m3fn": (3, 7), "fp8_e4m3fnuz": (3, 8)}
EIGHT_BITS |= {"fp8_e5m2": (2, 15), "fp8_e5m2fnuz": (2, 16)}


def value_of_byte(byte: int, dtype: str) -> float:
    """Return the value of an 8-bit float, by the definition of its type."""
    if dtype == "fp8_e8m0fnu":
        return math.nan if byte == 0xFF else math.ldexp(1.0, byte - 127)
    fraction_bits, bias = EIGHT_BITS[dtype]
    sign = -1.0 if byte & 0x80 else 1.0
    exponent = (byte & 0x7F) >> fraction_bits
    fraction = byte & ((1 << fraction_bits) - 1)
    if dtype.endswith("fnuz"):
        if byte == 0x80:
            return math.nan
    elif dtype == "fp8_e4m3fn":
        if byte & 0x7F == 0x7F:
            return math.nan
    elif exponent == 0x1F:
        return math.nan if fraction else sign * math.inf
    if exponent == 0:
        return sign * math.ldexp(fraction, 1 - bias - fraction_bits)
    return sign * math.ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits)


def encode(value: Any, dtype: str = "fp32") -> bytes:
    """Return the bytes of a value that is one of its type; bytes stay as they are."""
    if isinstance(value, bytes):
        return value
    form = DTYPES[dtype][2]
    if form is not None:
        return struct.pack("<" + form, value)
    if dtype == "complex64":
        return struct.pack("<ff", complex(value).real, complex(value).imag)
    if dtype == "fp4":
        return struct.pack("<B", int(value))
    if dtype == "bf16":
        raw = struct.pack("<f", value)
        assert raw[:2] == b"\0\0", f"bf16 has no {value!r}"
        return raw[2:]
    # repr() tells zeros apart and takes all NaNs as one.
    codes = [repr(value_of_byte(code, dtype)) for code in range(256)]
    return bytes([codes.index(repr(float(value)))])


def decode(raw: bytes, dtype: str = "fp32") -> Any:
    form = DTYPES[dtype][2]
    if form is not None:
        return struct.unpack("<" + form, raw)[0]
    if dtype == "complex64":
        return complex(*struct.unpack("<ff", raw))
    if dtype == "bf16":
        return struct.unpack("<f", b"\0\0" + raw)[0]
    return raw[0] if dtype == "fp4" else value_of_byte(raw[0], dtype)


def size_of(dtype: str) -> int:
    return (DTYPES[dtype][1] + 7) // 8


def tensor_dtype(dtype: str) -> tuple[int, int, int]:
    """Return what FakeTensor takes: code, bits, lanes."""
    return (*DTYPES[dtype][:2], 1)


def host_tensor(
    value: Any, dtype: str = "fp32", *, device: tuple[int, int] = (CPU, 0), **options: Any
) -> Any:
    """Make a tensor of a device whose memory the host reads: the CPU, or a fake XPU or MPS."""
    raw = encode(value, dtype)
    memory = ctypes.create_string_buffer(raw, len(raw))
    return options.pop("kind", load_tensors().FakeTensor)(
        ctypes.addressof(memory), tensor_dtype(dtype), device, owner=memory, **options
    )


# ---- the driver ----------------------------------------------------------------------------------

# The driver's functions as the recorder calls them: name in HIP, arguments.
API: dict[str, tuple[str, list[Any]]] = {
    "cuDeviceGet": ("hipDeviceGet", [POINTER(c_int), c_int]),
    "cuDevicePrimaryCtxGetState": (
        "hipDevicePrimaryCtxGetState",
        [c_int, POINTER(c_uint), POINTER(c_int)],
    ),
    "cuDevicePrimaryCtxRetain": ("hipDevicePrimaryCtxRetain", [POINTER(c_void_p), c_int]),
    "cuCtxGetCurrent": ("hipCtxGetCurrent", [POINTER(c_void_p)]),
    "cuCtxSetCurrent": ("hipCtxSetCurrent", [c_void_p]),
    "cuCtxGetDevice": ("hipCtxGetDevice", [POINTER(c_int)]),
    "cuMemHostAlloc": ("hipHostMalloc", [POINTER(c_void_p), c_size_t, c_uint]),
    "cuMemFreeHost": ("hipHostFree", [c_void_p]),
    "cuMemcpyDtoHAsync_v2": ("hipMemcpyDtoHAsync", [c_void_p, c_ulonglong, c_size_t, c_void_p]),
    "cuEventCreate": ("hipEventCreateWithFlags", [POINTER(c_void_p), c_uint]),
    "cuEventDestroy_v2": ("hipEventDestroy", [c_void_p]),
    "cuEventRecord": ("hipEventRecord", [c_void_p, c_void_p]),
    "cuEventQuery": ("hipEventQuery", [c_void_p]),
    "cuEventElapsedTime": ("hipEventElapsedTime", [POINTER(c_float), c_void_p, c_void_p]),
    "cuStreamIsCapturing": ("hipStreamIsCapturing", [c_void_p, POINTER(c_int)]),
    "cuThreadExchangeStreamCaptureMode": ("hipThreadExchangeStreamCaptureMode", [POINTER(c_int)]),
    "cuCtxSynchronize": ("hipDeviceSynchronize", []),
    "cuStreamSynchronize": ("hipStreamSynchronize", [c_void_p]),
    "cuEventSynchronize": ("hipEventSynchronize", [c_void_p]),
    "cuMemcpyDtoH_v2": ("hipMemcpyDtoH", [c_void_p, c_ulonglong, c_size_t]),
}
CONTROLS: dict[str, tuple[Any, list[Any]]] = {
    "fake_reset": (None, []),
    "fake_reset_counts": (None, []),
    "fake_set_devices": (c_int, [c_int]),
    "fake_activate": (c_int, [c_int]),
    "fake_context": (c_void_p, [c_int]),
    "fake_context_stream": (c_void_p, [c_void_p, c_int]),
    "fake_malloc": (c_ulonglong, [c_int, c_size_t]),
    "fake_free": (c_int, [c_ulonglong, c_void_p]),
    "fake_unmap": (c_int, [c_ulonglong]),
    "fake_store": (c_int, [c_void_p, c_ulonglong, c_void_p, c_size_t]),
    "fake_store_now": (c_int, [c_ulonglong, c_void_p, c_size_t]),
    "fake_load": (c_int, [c_ulonglong, c_void_p, c_size_t]),
    "fake_stream": (c_void_p, [c_int]),
    "fake_stream_nonblocking": (c_void_p, [c_int]),
    "fake_legacy_stream": (c_void_p, [c_int]),
    "fake_delay": (c_int, [c_void_p, c_long]),
    "fake_hang": (c_int, [c_void_p]),
    "fake_release": (c_int, [c_void_p]),
    "fake_wait": (c_int, [c_void_p, c_long]),
    "fake_queue_depth": (None, [c_size_t]),
    "fake_stall": (c_int, [ctypes.c_char_p, c_int]),
    "fake_fail": (c_int, [ctypes.c_char_p, c_int, c_int]),
    "fake_break": (c_int, [c_int, c_int]),
    "fake_begin_capture": (c_int, [c_void_p, c_int]),
    "fake_end_capture": (c_int, [c_void_p]),
    "fake_count": (c_long, [ctypes.c_char_p]),
    "fake_calls_in_child": (c_long, []),
}


class FakeDriver:
    """The fake driver of this process: streams and pointers are plain numbers.

    Functions are named as NVIDIA names them, for HIP too; fake_cuda.h says what the controls do.
    """

    def __init__(self, path: Path, *, hip: bool = False) -> None:
        self.path = path
        self.hip = hip
        self.device_type = ROCM if hip else CUDA
        self.library = ctypes.CDLL(str(path))
        for name, (result, arguments) in CONTROLS.items():
            function = self.library[name]
            setattr(self.library, name, function)
            function.restype, function.argtypes = result, arguments
        self.api: dict[str, Any] = {}
        for name, (hip_name, arguments) in API.items():
            function = self.library[hip_name if hip else name]
            function.restype, function.argtypes = c_int, arguments
            self.api[name] = function

    def _do(self, name: str, *arguments: Any) -> None:
        assert getattr(self.library, name)(*arguments) == 0, f"{name}{arguments} was refused"

    def _name(self, name: str) -> bytes:
        return (API[name][0] if self.hip and name in API else name).encode()

    def call(self, name: str, *arguments: Any) -> int:
        """Call a function of the driver; outputs are ctypes objects. Return its code."""
        return int(self.api[name](*arguments))

    # -- the machine --

    def reset(self) -> None:
        self.library.fake_reset()
        load_tensors().reset()

    def reset_counts(self) -> None:
        """Forget counts and injections; handles stay valid."""
        self.library.fake_reset_counts()

    def set_devices(self, count: int) -> None:
        self._do("fake_set_devices", count)

    def activate(self, device: int = 0) -> None:
        """Create the primary context of a device, as the first use by torch does."""
        self._do("fake_activate", device)

    def use(self, device: int = 0) -> None:
        """Create the context, if need be, and make it this thread's current one, as torch does."""
        self.activate(device)
        context = c_void_p()
        assert self.call("cuDevicePrimaryCtxRetain", context, device) == 0
        assert self.call("cuCtxSetCurrent", context) == 0

    def context(self, device: int = 0) -> int:
        """Make a context beside the primary one, as another library does."""
        return int(self.library.fake_context(device))

    def context_stream(self, context: int, *, legacy: bool = False) -> int:
        return int(self.library.fake_context_stream(context, legacy))

    # -- memory --

    def allocate(self, device: int, size: int) -> int:
        address = int(self.library.fake_malloc(device, size))
        assert address != 0, "the fake device is full"
        return address

    def malloc(self, device: int, value: Any, dtype: str = "fp32") -> int:
        raw = encode(value, dtype)
        address = self.allocate(device, len(raw))
        self.store_now(address, raw)
        return address

    def free(self, address: int, stream: int) -> None:
        """Free: reusable at once, poisoned in the order of the stream."""
        self._do("fake_free", address, stream)

    def unmap(self, address: int) -> None:
        """Take a block's memory away: a copy that reads it from now on breaks the device."""
        self._do("fake_unmap", address)

    def store(self, stream: int, address: int, value: Any, dtype: str = "fp32") -> None:
        """Enqueue a kernel that writes a value."""
        raw = encode(value, dtype)
        self._do("fake_store", stream, address, raw, len(raw))

    def store_now(self, address: int, value: Any, dtype: str = "fp32") -> None:
        """Write a value without any order."""
        raw = encode(value, dtype)
        self._do("fake_store_now", address, raw, len(raw))

    def load(self, address: int, dtype: str = "fp32") -> Any:
        buffer = ctypes.create_string_buffer(size_of(dtype))
        self._do("fake_load", address, buffer, len(buffer))
        return decode(buffer.raw, dtype)

    # -- streams --

    def stream(self, device: int = 0, *, nonblocking: bool = False) -> int:
        make = self.library.fake_stream_nonblocking if nonblocking else self.library.fake_stream
        return int(make(device))

    def legacy_stream(self, device: int = 0) -> int:
        """Return a handle for the stream that the driver calls NULL."""
        return int(self.library.fake_legacy_stream(device))

    def delay(self, stream: int, microseconds: int) -> None:
        self._do("fake_delay", stream, microseconds)

    def hang(self, stream: int) -> None:
        """Enqueue work that ends when it is released."""
        self._do("fake_hang", stream)

    def release(self, stream: int) -> None:
        """End all hangs that were enqueued so far."""
        self._do("fake_release", stream)

    @contextlib.contextmanager
    def hanging(self, stream: int) -> Iterator[None]:
        self.hang(stream)
        try:
            yield
        finally:
            self.release(stream)

    def wait(self, stream: int, seconds: float = 10.0) -> bool:
        """Wait until the stream has nothing to do; False when it took too long."""
        return bool(self.library.fake_wait(stream, int(seconds * 1e6)))

    # -- calls that wait, injections, capture --

    def queue_depth(self, depth: int) -> None:
        """Let copies and records wait while a stream has so many operations queued; 0: never."""
        self.library.fake_queue_depth(depth)

    def stall(self, name: str, *, stalled: bool = True) -> None:
        """Let calls of a function wait, until this is called with False."""
        self._do("fake_stall", self._name(name), stalled)

    def fail(self, name: str, code: int, count: int = 1) -> None:
        """Let the next calls of a function return a code; -1: all of them."""
        self._do("fake_fail", self._name(name), code, count)

    def break_device(self, device: int = 0, code: int = ILLEGAL_ADDRESS) -> None:
        """Let everything on a device's context fail for good."""
        self._do("fake_break", device, code)

    def begin_capture(self, stream: int, mode: int = GLOBAL) -> None:
        """Begin a capture, by this thread."""
        self._do("fake_begin_capture", stream, mode)

    def end_capture(self, stream: int) -> bool:
        """End the capture; tell whether it was valid to its end."""
        return bool(self.library.fake_end_capture(stream))

    # -- counts --

    def count(self, name: str) -> int:
        """Return calls of a function, or one of the counts in fake_cuda.h."""
        count = int(self.library.fake_count(self._name(name)))
        assert count >= 0, f"no such count: {name}"
        return count

    def calls_in_child(self) -> int:
        return int(self.library.fake_calls_in_child())

    # -- tensors --

    def tensor(
        self,
        value: Any,
        dtype: str = "fp32",
        device: int = 0,
        *,
        stream: int | None = None,
        kind: Any = None,
        **options: Any,
    ) -> Any:
        """Make a tensor over device memory, which lives until it is freed, or a reset.

        Args:
            value: A number, or the raw bytes.
            dtype: A name of DTYPES.
            device: Index of the device.
            stream: Where a kernel writes the value; without one it is there at once.
            kind: Class of the tensor; FakeTensor by default.
            **options: Of the class: shape, requires_grad, is_neg, is_conj, null_data, raises.
        """
        raw = encode(value, dtype)
        address = self.allocate(device, len(raw))
        if stream is None:
            self.store_now(address, raw)
        else:
            self.store(stream, address, raw)
        make = kind or load_tensors().FakeTensor
        return make(address, tensor_dtype(dtype), (self.device_type, device), **options)

    def set_stream(self, stream: int, device: int = 0) -> None:
        """Make this torch's current stream of the device; 0 is the legacy one."""
        load_tensors().set_stream(self.device_type, device, stream)
