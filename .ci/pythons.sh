#!/usr/bin/env bash
# Print one interpreter for each supported Python minor version found on this machine.
#
# Searches PATH, then pyenv's folder. Only interpreters that can build an extension (that
# have Python.h) count.
set -euo pipefail

usable() {
  [ -x "$1" ] && [ "$("$1" -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
print("%d.%d" % sys.version_info[:2] if os.path.exists(header) else "no header")
' 2>/dev/null)" = "$2" ]
}

for version in 3.10 3.11 3.12 3.13 3.14 3.15; do
  shopt -s nullglob
  for candidate in "$(command -v "python$version" 2>/dev/null || true)" \
    "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
    if [ -n "$candidate" ] && usable "$candidate" "$version"; then
      echo "$candidate"
      break
    fi
  done
done
