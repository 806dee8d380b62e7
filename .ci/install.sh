#!/usr/bin/env bash
# Build the extension and install this package, editable, into a virtual environment.
#
#   usage: install.sh VENV EXTRAS    install with these extras (comma-separated)
#          install.sh VENV           only rebuild the extension, if necessary
#
# A rebuild is necessary if a source is newer than the start of the last build, if
# FASTLOG_DEBUG, FASTLOG_COVERAGE, FASTLOG_SANITIZE or a compiler variable changed, or if the
# built file is gone.
set -euo pipefail

venv=${1:?usage: install.sh VENV [EXTRAS]}
extras=${2:-}
stamp=$venv/.stamp-extension

library=foundry_fastlog/_core$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
variant="debug=${FASTLOG_DEBUG:-} coverage=${FASTLOG_COVERAGE:-} sanitize=${FASTLOG_SANITIZE:-}"
variant+=" ${CXX:-} ${CXXFLAGS:-} ${CFLAGS:-} ${LDFLAGS:-}"

fresh() {
  [ -f "$library" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$variant" ] &&
    # Folders count too: their time changes when a file is removed.
    [ -z "$(find csrc setup.py pyproject.toml -newer "$stamp" -print | head -n 1)" ]
}

if [ -z "$extras" ]; then
  if fresh; then exit 0; fi
  echo "[set-up] building foundry_fastlog._core"
  target=(--no-deps -e .)
else
  echo "[set-up] building foundry_fastlog and installing its extras: $extras"
  target=(-e ".[$extras]")
fi

# The stamp has the time of the start of the build, so an edit during the build is not missed.
printf '%s\n' "$variant" >"$stamp.new"
"$venv/bin/python" -m pip install -qq --progress-bar off --disable-pip-version-check \
  --no-build-isolation "${target[@]}"
mv "$stamp.new" "$stamp"
