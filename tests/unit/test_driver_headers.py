"""The driver table of csrc/device beside the vendors' own headers, where they are at hand.

A C++ file is made from the table and compiled (not linked): each function of `DriverApi` against
the declaration of the symbol that is looked up by its name, each constant against the header's.
Headers are found in a toolkit (CUDA_HOME, CUDA_PATH, ROCM_PATH, the usual folders) and in NVIDIA's
wheels.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
FAKE = ROOT / "tests" / "device" / "fake_cuda.h"

HEADER = (CSRC / "device" / "driver.hpp").read_text(encoding="utf-8")

# Constants of DriverApi by the names of the headers. One that is not here fails the test.
CONSTANTS = {
    "kSuccess": ("CUDA_SUCCESS", "hipSuccess"),
    "kNotInitialized": ("CUDA_ERROR_NOT_INITIALIZED", "hipErrorNotInitialized"),
    "kInvalidHandle": ("CUDA_ERROR_INVALID_HANDLE", "hipErrorInvalidHandle"),
    "kInvalidContext": ("CUDA_ERROR_INVALID_CONTEXT", "hipErrorInvalidContext"),
    "kNotReady": ("CUDA_ERROR_NOT_READY", "hipErrorNotReady"),
    "kFirstCaptureError":
        ("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "hipErrorStreamCaptureUnsupported"),
    "kLastCaptureError":
        ("CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "hipErrorStreamCaptureWrongThread"),
    "kPortable": ("CU_MEMHOSTALLOC_PORTABLE", "hipHostMallocPortable"),
    "kDisableTiming": ("CU_EVENT_DISABLE_TIMING", "hipEventDisableTiming"),
    "kRelaxed": ("CU_STREAM_CAPTURE_MODE_RELAXED", "hipStreamCaptureModeRelaxed"),
    "kNotCapturing": ("CU_STREAM_CAPTURE_STATUS_NONE", "hipStreamCaptureStatusNone"),
}  # fmt: skip
# The fake driver's codes by CUDA's names, where they differ from "CUDA_ERROR_" and the fake's own.
FAKE_CODES = {
    "SUCCESS": "CUDA_SUCCESS",
    "CAPTURE_UNSUPPORTED": "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
    "CAPTURE_INVALIDATED": "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
    "CAPTURE_IMPLICIT": "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
}

COMPARE = r"""
#include <cstddef>
#include <cstdint>
#include <type_traits>

// Whether the ABI passes both in the same way and both mean the same to the callee: size, whole or
// floating number, sign, and for pointers what they point at; void* stands for any handle.
template <class Ours, class Real>
constexpr bool alike() {
    if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Real>) {
        using To = std::remove_cv_t<std::remove_pointer_t<Ours>>;
        using RealTo = std::remove_cv_t<std::remove_pointer_t<Real>>;
        if constexpr (std::is_void_v<To>) return std::is_void_v<RealTo> || std::is_class_v<RealTo>;
        else if constexpr (std::is_void_v<RealTo> || std::is_class_v<RealTo>) return false;
        else return alike<To, RealTo>();
    } else if constexpr (std::is_pointer_v<Real>) {
        return kAddressMayBePointer && std::is_same_v<Ours, std::uint64_t> && sizeof(Real) == 8;
    } else if constexpr (std::is_enum_v<Real>) {
        return std::is_integral_v<Ours> && sizeof(Ours) == sizeof(Real);
    } else {
        return std::is_floating_point_v<Ours> == std::is_floating_point_v<Real> &&
               std::is_signed_v<Ours> == std::is_signed_v<Real> && sizeof(Ours) == sizeof(Real);
    }
}
template <class Ours, class Real>
struct Beside;
template <class R, class... A, class RealR, class... RealA>
struct Beside<R (*)(A...), RealR (*)(RealA...)> {
    static constexpr bool count = sizeof...(A) == sizeof...(RealA);
    static constexpr bool types() {
        if constexpr (count) return alike<R, RealR>() && (alike<A, RealA>() && ...);
        else return true;  // the number says it
    }
};
"""


def table() -> list[tuple[str, str, str]]:
    """Return member, name in CUDA and name in HIP of each function in driver.cpp."""
    text = (CSRC / "device" / "driver.cpp").read_text(encoding="utf-8")
    rows = re.findall(r'\{offsetof\(DriverApi, (\w+)\),\s*"(\w+)",\s*"(\w+)"\}', text)
    assert len(rows) == text.count("offsetof(DriverApi, "), "a row that this test cannot read"
    return rows


def constants() -> list[str]:
    return re.findall(r"static constexpr \w+ (k\w+) = ", HEADER)


def beside(ours: str, name: str, where: str) -> list[str]:
    pair = f"Beside<{ours}, decltype(&::{name})>"
    return [
        f'static_assert({pair}::count, "{where}, {name}: number of parameters");',
        f'static_assert({pair}::types(), "{where}, {name}: types");',
    ]


def program(folder: Path, *, hip: bool, rows: list[tuple[str, str, str]] | None = None) -> str:
    says = [f"constexpr bool kAddressMayBePointer = {'true' if hip else 'false'};"]
    typedefs = ""
    if hip:
        # Without the templates of the same names, which hide the types.
        start = "#define __HIP_PLATFORM_AMD__ 1\n#define __HIP_DISABLE_CPP_FUNCTIONS__\n"
        start += "#include <hip/hip_runtime_api.h>"
    else:
        # All symbols are declared then, under the names that the library exports.
        start = "#define __CUDA_API_VERSION_INTERNAL\n#include <cuda.h>\n#include <cudaTypedefs.h>"
        typedefs = (folder / "cudaTypedefs.h").read_text(encoding="utf-8")
    checks = []
    for member, cuda, hip_name in rows or table():
        name = hip_name if hip else cuda
        checks += beside(f"decltype(fastlog::DriverApi::{member})", name, member)
        if not hip:
            plain = re.sub(r"_v\d$", "", name)
            known = sorted(set(re.findall(rf"PFN_{plain}_v\d+\b", typedefs)))
            same = " || ".join(f"std::is_same_v<decltype(&::{name}), {each}>" for each in known)
            checks.append(f'static_assert({same or "false"}, "{name}: in no typedef");')
    for name in constants():
        real = CONSTANTS[name][hip] if name in CONSTANTS else f"unknown_name_of_{name}"
        checks.append(
            f"static_assert(static_cast<long>(fastlog::DriverApi::{name}) == "
            f'static_cast<long>({real}), "{name} is not {real}");'
        )
    if not hip:
        checks += helpers()
        codes = FAKE.read_text(encoding="utf-8").partition("enum FakeCode {")[2].partition("}")[0]
        for name, code in re.findall(r"FAKE_(\w+) = (\d+)", codes):
            real = FAKE_CODES.get(name, f"CUDA_ERROR_{name}")
            checks.append(f'static_assert({code} == {real}, "FAKE_{name} is not {real}");')
    return "\n".join([start, '#include "device/driver.hpp"', *says, COMPARE, *checks, ""])


def helpers() -> list[str]:
    """Return checks of the functions that the benchmark's helpers in C look up."""
    checks = []
    for path in (ROOT / "benchmarks" / "gpu").rglob("*.c"):
        text = path.read_text(encoding="utf-8")
        types = dict(re.findall(r"(?:typedef|static) int \(\*(\w+)\)(\([^)]*\));", text))
        # By a table of addresses and names, or by casts of what dlsym() found.
        known = re.findall(r'\{&(\w+), "(\w+)"\}', text)
        known += re.findall(r'\((\w+)\)dlsym\(\w+, "(\w+)"\)', text)
        assert len(known) == len(set(re.findall(r'"(cu\w+)"', text))), path
        for ours, name in known:
            checks += beside(f"int (*){types[ours]}", name, path.name)
    return checks


def compiled(source: str, include: Path, scratch: Path, csrc: Path = CSRC) -> str:
    """Compile without output; return what the compiler says, "" when it is content."""
    path = scratch / "check.cpp"
    path.write_text(source, encoding="utf-8")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = ["-std=c++20", "-fsyntax-only", "-Wno-deprecated-declarations", f"-I{csrc}"]
    command = [compiler, *flags, "-isystem", str(include), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def of_wheels() -> Iterator[Path]:
    """Yield folders of cuda.h in NVIDIA's wheels: by metadata, and where sys.path has them."""
    known = ("nvidia-cuda-runtime", "nvidia-cuda-crt")
    for wheel in metadata.distributions():
        if (wheel.metadata["Name"] or "").lower().startswith(known):
            found = (file for file in wheel.files or () if file.name == "cuda.h")
            yield from (Path(str(wheel.locate_file(file))).parent for file in found)
    for entry in sys.path:
        yield from (file.parent for file in Path(entry or ".").glob("nvidia/*/include/cuda.h"))


def cuda_folders() -> list[Path]:
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    roots += sorted(Path("/usr/local").glob("cuda*"))
    folders = [*(root / "include" for root in roots), Path("/usr/include"), *of_wheels()]
    found = {folder.resolve(): None for folder in folders if (folder / "cuda.h").is_file()}
    return [folder for folder in found if (folder / "cudaTypedefs.h").is_file()]


def hip_folders() -> list[Path]:
    roots = [Path(os.environ["ROCM_PATH"])] if os.environ.get("ROCM_PATH") else []
    roots += [*sorted(Path("/opt").glob("rocm*")), Path("/usr")]
    folders = [root / "include" for root in roots]
    found = {folder.resolve() for folder in folders if (folder / "hip/hip_runtime_api.h").is_file()}
    return sorted(found)


NO_CUDA = "no cuda.h with cudaTypedefs.h: neither a CUDA toolkit nor NVIDIA's wheels with headers"
NO_HIP = "no hip/hip_runtime_api.h: no ROCm"


def each(folders: Callable[[], list[Path]], reason: str) -> list[object]:
    """Return a parameter for each folder, or one that is skipped with the reason."""
    found: list[object] = [pytest.param(folder, id=str(folder)) for folder in folders()]
    return found or [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]


@pytest.mark.parametrize("folder", each(cuda_folders, NO_CUDA))
def test_the_table_is_what_cuda_declares(folder: Path, tmp_path: Path) -> None:
    """Names, number and types of parameters, constants; the fake driver's codes too."""
    assert compiled(program(folder, hip=False), folder, tmp_path) == ""


@pytest.mark.parametrize("folder", each(hip_folders, NO_HIP))
def test_the_table_is_what_hip_declares(folder: Path, tmp_path: Path) -> None:
    """The same for ROCm, where a device address is a pointer."""
    assert compiled(program(folder, hip=True), folder, tmp_path) == ""


def test_each_constant_has_a_name_in_the_headers() -> None:
    """Also where no header is at hand: a new constant has to be compared."""
    assert set(constants()) <= set(CONSTANTS)
    assert len(constants()) > 8


# One difference each, and what the compiler is to say of it.
WRONG = {
    "(*event_query)(DriverHandle event)":
        ("(*event_query)(DriverHandle, int)", "event_query, cuEventQuery: number of parameters"),
    "std::uint64_t from":
        ("std::uint32_t from", "copy_to_host_async, cuMemcpyDtoHAsync_v2: types"),
    "std::size_t bytes, unsigned flags":
        ("std::size_t bytes, int flags", "host_alloc, cuMemHostAlloc: types"),
    "(*device_get)(int* device": ("(*device_get)(int device", "device_get, cuDeviceGet: types"),
    "float* ms": ("double* ms", "event_elapsed_ms, cuEventElapsedTime: types"),
    "(*event_create)(DriverHandle* event":
        ("(*event_create)(DriverHandle event", "event_create, cuEventCreate: types"),
    "(int device, unsigned* flags":
        ("(unsigned* flags, int device",
         "primary_context_state, cuDevicePrimaryCtxGetState: types"),
    "int (*context_set_current)":
        ("void (*context_set_current)", "context_set_current, cuCtxSetCurrent: types"),
    "kNotReady = 600": ("kNotReady = 601", "kNotReady is not CUDA_ERROR_NOT_READY"),
    "kDisableTiming = 2": ("kDisableTiming = 1", "kDisableTiming is not CU_EVENT_DISABLE_TIMING"),
}  # fmt: skip


@pytest.mark.parametrize("folder", each(cuda_folders, NO_CUDA)[:1])
def test_each_wrong_entry_is_named(folder: Path, tmp_path: Path) -> None:
    """Number, size, sign, kind and order of parameters, results, constants."""
    header = HEADER
    for right, (wrong, _) in WRONG.items():
        assert header.count(right) == 1, right
        header = header.replace(right, wrong)
    copy = tmp_path / "csrc"
    (copy / "device").mkdir(parents=True)
    (copy / "device" / "driver.hpp").write_text(header, encoding="utf-8")
    (copy / "core").symlink_to(CSRC / "core")
    said = compiled(program(folder, hip=False), folder, tmp_path, copy)
    assert [message for _, message in WRONG.values() if f"failed: {message}" not in said] == []
    assert said.count("static assertion failed") == len(WRONG)


@pytest.mark.parametrize("folder", each(cuda_folders, NO_CUDA)[:1])
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("cuEventQuery", "cuEventAsk"), ("cuMemcpyDtoHAsync_v2", "cuMemcpyDtoHAsync")],
)
def test_another_name_is_noticed(folder: Path, right: str, wrong: str, tmp_path: Path) -> None:
    """One that no header has, and that of the function's first version."""
    rows = [(member, wrong if cuda == right else cuda, hip) for member, cuda, hip in table()]
    assert wrong in compiled(program(folder, hip=False, rows=rows), folder, tmp_path)
