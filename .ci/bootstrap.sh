#!/usr/bin/env bash
# Check the build requirements and create the virtual environment.
#
#   usage: bootstrap.sh PYTHON VENV
#
# On Debian or Ubuntu as root, installs missing system packages; anywhere else, prints the
# exact command to run. Prints nothing if nothing is missing.
set -euo pipefail

python=${1:?usage: bootstrap.sh PYTHON VENV}
venv=${2:?usage: bootstrap.sh PYTHON VENV}
cxx=${CXX:-g++}

say() { printf '[set-up] %s\n' "$*"; }
die() {
  printf '\n[set-up] %s\n' "$@" >&2
  exit 1
}

has_apt() { command -v apt-get >/dev/null 2>&1; }

# need_packages WHY PACKAGE...: install Debian packages, or print how to.
need_packages() {
  local why=$1
  shift
  if ! has_apt; then
    die "$why" "Install it with your system's package manager (on Debian: $*), then run make again."
  fi
  if [ "$(id -u)" -ne 0 ]; then
    die "$why" "Run this, then make again:" "    sudo apt-get install -y $*"
  fi
  say "$why Installing $*"
  export DEBIAN_FRONTEND=noninteractive
  if ! apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1; then
    apt-get update -q >/dev/null
    apt-get install -y -q --no-install-recommends "$@" >/dev/null
  fi
}

# --- Python -----------------------------------------------------------------------
command -v "$python" >/dev/null 2>&1 ||
  need_packages "$python was not found." python3 python3-venv python3-dev
"$python" - <<'PY' || die "$python is too old: CPython 3.10 or newer is required." \
  "Use a newer one, for example:" "    make PYTHON=python3.12 ..."
import sys

sys.exit(sys.version_info < (3, 10) or sys.implementation.name != "cpython")
PY

# --- the virtual environment --------------------------------------------------------
# Python's header file. Debian has it in a separate package.
header() {
  "$python" -c 'import os, sysconfig; print(os.path.join(sysconfig.get_paths()["include"], "Python.h"))'
}
# Debian's package for this interpreter: python3.11-dev for 3.11.
debian_python() { "$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'; }

[ -f "$(header)" ] ||
  need_packages "Python.h of $python is missing." "$(debian_python)-dev"
[ -f "$(header)" ] ||
  die "Python.h of $python is still missing: expected $(header)." \
    "Install this interpreter's development files, or choose another with make PYTHON=..."

# --- the compiler ---------------------------------------------------------------------
command -v "$cxx" >/dev/null 2>&1 || need_packages "No C++ compiler ($cxx) was found." g++
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/probe.cpp" <<'CPP'
#include <atomic>
#include <bit>
#include <charconv>
#include <concepts>
#include <span>

int main() {
  char text[32];
  std::atomic<int> value{0};
  value.wait(1);
  auto [end, error] = std::to_chars(text, text + sizeof text, 0.1);
  return error == std::errc{} && std::has_single_bit(64u) ? 0 : static_cast<int>(end - text);
}
CPP
"$cxx" -std=c++20 -pthread "$scratch/probe.cpp" -o "$scratch/probe" 2>"$scratch/log" || {
  cat "$scratch/log" >&2
  die "$cxx cannot compile C++20 with floating-point std::to_chars: GCC 11 or newer," \
    "or clang 14 or newer with a matching standard library, is required." \
    "Choose another compiler with: make CXX=g++-12 ..."
}

# Recreate a venv whose interpreter is gone or has another version.
if [ -e "$venv" ]; then
  want=$("$python" -c 'import sys; print(sys.version_info[:2])')
  have=$("$venv/bin/python" -c 'import sys, pip; print(sys.version_info[:2])' 2>/dev/null || true)
  if [ "$want" != "$have" ]; then
    [ -e "$venv/pyvenv.cfg" ] || die "$venv exists and is not a virtual environment; choose another with make VENV=..."
    say "$venv does not match $python; recreating it"
    rm -rf "$venv"
  fi
fi
if [ ! -e "$venv" ]; then
  "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    need_packages "$python cannot create a virtual environment." "$(debian_python)-venv"
  say "creating $venv with $("$python" --version)"
  "$python" -m venv "$venv"
fi
