"""Build the native extension `foundry_fastlog._core`; all else is in pyproject.toml.

Environment variables select the build:

    FASTLOG_DEBUG=1           -O0 -g3, assertions on, standard library checks on
    FASTLOG_SANITIZE=LIST     `address,undefined` or `thread`; run Python with the
                              sanitizer's library preloaded (see CONTRIBUTING.md)
    FASTLOG_COVERAGE=1        gcov instrumentation
    FASTLOG_WERROR=1          warnings are errors
    FASTLOG_BUILD_JOBS=N      parallel compile jobs (default: all cores)

Each combination of flags has its own object folder under build/, so switching between
builds never mixes objects, and an edit compiles only what includes the edited file. What
knows no Python is compiled once for all interpreters.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from itertools import repeat
from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
SANITIZERS = {"address", "undefined", "thread", "leak"}

# Relative paths: they name the objects, and absolute ones would leak the builder's folders.
# The largest unit comes first, so that the others are compiled beside it; it includes its room,
# the only one that knows Python.
BINDINGS = "csrc/bindings/module.cpp"
SOURCES = [
    BINDINGS,
    *sorted(
        path.relative_to(ROOT).as_posix()
        for room in ("core", "device", "reader")
        for path in (ROOT / "csrc" / room).glob("*.cpp")
    ),
]
HEADERS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.hpp", "*.h")
    for path in (ROOT / "csrc").rglob(pattern)
)


def env_flag(name: str) -> bool:
    """Read an on/off environment variable: unset, empty and 0 are off."""
    return os.environ.get(name, "") not in ("", "0")


def build_flags() -> tuple[list[str], list[str]]:
    """Choose compile and link flags from the FASTLOG_* environment variables."""
    compile_args = [
        "-fvisibility=hidden",
        "-fvisibility-inlines-hidden",
        "-fno-math-errno",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Wshadow",
        "-Wconversion",
        "-Wno-sign-conversion",
        "-Wnon-virtual-dtor",
    ]
    link_args: list[str] = []
    if sys.platform == "linux":
        # Without a table of jumps, a call into Python with cold caches reads one line less.
        compile_args += ["-pthread", "-MMD", "-fno-plt"]
        link_args += ["-pthread"]

    sanitize = [name for name in os.environ.get("FASTLOG_SANITIZE", "").split(",") if name]
    if env_flag("FASTLOG_DEBUG"):
        compile_args += ["-O0", "-g3", "-UNDEBUG", "-D_GLIBCXX_ASSERTIONS"]
    elif sanitize:
        # Sanitizers compile very slowly when optimised, and give worse stacks.
        compile_args += ["-Og", "-g1", "-UNDEBUG", "-fno-omit-frame-pointer"]
    else:
        compile_args += ["-O3", "-DNDEBUG"]
    if env_flag("FASTLOG_WERROR"):
        compile_args.append("-Werror")

    if sanitize:
        unknown = sorted(set(sanitize) - SANITIZERS)
        if unknown:
            raise SystemExit(
                f"FASTLOG_SANITIZE: {', '.join(unknown)} unknown; use a comma-separated "
                f"choice of {', '.join(sorted(SANITIZERS))}"
            )
        if "thread" in sanitize and "address" in sanitize:
            raise SystemExit("FASTLOG_SANITIZE: address and thread cannot be combined")
        option = f"-fsanitize={','.join(sanitize)}"
        # Its look at an object's type needs a free descriptor, and without one sees a fault.
        compile_args += [option, "-fno-sanitize-recover=all", "-fno-sanitize=vptr"]
        link_args += [option]
    if env_flag("FASTLOG_COVERAGE"):
        compile_args += ["--coverage", "-O0", "-g", "-fprofile-update=atomic"]
        link_args += ["--coverage"]
    return compile_args, link_args


COMPILE_ARGS, LINK_ARGS = build_flags()

# As system headers, others' code stays out of our warnings and of -MMD's lists.
SYSTEM_INCLUDES = [
    f"-isystem{path}" for path in (pybind11.get_include(), sysconfig.get_paths()["include"])
]


def object_folder(target: str) -> str:
    """Name the folder of objects for an ABI of Python or a platform, built with these flags."""
    inputs = [
        *COMPILE_ARGS,
        *LINK_ARGS,
        pybind11.__version__,
        *(os.environ.get(name, "") for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS")),
        *(os.environ.get(name, "") for name in ("ARCHFLAGS", "MACOSX_DEPLOYMENT_TARGET")),
    ]
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:10]
    return (Path("build") / f"ext-{target}-{digest}").as_posix()


def needs_recompile(obj: str, src: str) -> bool:
    """Tell whether `src` or a header it includes is newer than `obj`.

    Reads the dependency file that -MMD wrote beside the object. Without one (first
    build, or a compiler for which we do not ask for it) the answer is yes.
    """
    deps_file = Path(obj).with_suffix(".d")
    try:
        built = Path(obj).stat().st_mtime_ns
        rule = deps_file.read_text(encoding="utf-8").replace("\\\n", " ")
        _, _, listed = rule.partition(": ")
        prerequisites = [src, *listed.split()]
        return any(Path(path).stat().st_mtime_ns >= built for path in prerequisites)
    except FileNotFoundError:
        return True


class BuildExt(build_ext):
    """build_ext that keeps its objects between runs, also for `pip install -e`."""

    def finalize_options(self) -> None:
        """Move the object folder out of pip's temporary folder, and always link anew."""
        super().finalize_options()
        abi = sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag
        self.build_temp = object_folder(abi)
        # Whether to compile is decided for each object, by needs_recompile; linking is
        # quick, and the linked file must follow a switch of flags.
        self.force = True

    def build_extensions(self) -> None:
        """Compile with one job for each core (FASTLOG_BUILD_JOBS overrides)."""
        name_objects = self.compiler.object_filenames
        shared = object_folder(sysconfig.get_platform())

        def object_filenames(
            sources: list[str], strip_dir: bool = False, output_dir: str = ""
        ) -> list[str]:
            folders = [output_dir if source == BINDINGS else shared for source in sources]
            named = map(name_objects, ([s] for s in sources), repeat(strip_dir), folders)
            return [name for names in named for name in names]

        self.compiler.object_filenames = object_filenames
        with ParallelCompile("FASTLOG_BUILD_JOBS", needs_recompile=needs_recompile):
            super().build_extensions()


extension = Pybind11Extension(
    "foundry_fastlog._core",
    SOURCES,
    include_dirs=["csrc"],
    depends=HEADERS,
    cxx_std=20,
    extra_compile_args=[*SYSTEM_INCLUDES, *COMPILE_ARGS],
    extra_link_args=LINK_ARGS,
)

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExt})
