#!/usr/bin/env bash
# Run Python tests with the extension and core built under AddressSanitizer and UBSan.
#
#   usage: sanitize-python.sh VENV [PYTEST ARGUMENTS...]
#          sanitize-python.sh VENV --build         # only build, so that a later run is fast
#
# The instrumented package is built into build/asan-lib; the installed one is not touched.
set -euo pipefail

venv=$(cd "${1:?usage: sanitize-python.sh VENV [PYTEST ARGUMENTS...]}" && pwd)
shift
library=$PWD/build/asan-lib
cxx=${CXX:-g++}

if [ "$(uname -s)" != Linux ]; then
  echo "[asan] preloading a sanitizer into Python works on Linux only; nothing was run" >&2
  exit 1
fi
echo "[asan] building the package into build/asan-lib"
rm -rf "$library"
FASTLOG_SANITIZE=address,undefined "$venv/bin/python" setup.py -q \
  build --build-lib "$library" >build/asan-build.log 2>&1 || {
  cat build/asan-build.log >&2
  exit 1
}

[ "${1:-}" != --build ] || exit 0

# Python itself is not instrumented: preload the sanitizer's library, ignore Python's own leaks
# at exit, and disable its allocator, which would hide accesses around a block.
export LD_PRELOAD="$("$cxx" -print-file-name=libasan.so) $("$cxx" -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export PYTHONMALLOC=malloc PYTHONPATH=$library
(cd / && "$venv/bin/python" -c '
import foundry_fastlog._core as core
assert "asan-lib" in core.__file__, f"not the instrumented extension: {core.__file__}"')
# A report ends the process. --capture=sys lets the sanitizer's output through.
exec "$venv/bin/pytest" -o pythonpath=tests --capture=sys "$@"
