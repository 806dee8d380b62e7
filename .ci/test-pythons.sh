#!/usr/bin/env bash
# Build and test with every other supported Python found here, without torch.
#
#   usage: test-pythons.sh OWN_PYTHON [oldest] [--build]
#
# With `oldest`, only that of them.
# With `--build`, only the environments are made, so that a later run is fast.
#
# The environments are created one after the other, because they build in one checkout. Then the tests
# run in parallel, and their output is shown one after the other.
set -euo pipefail
set -m  # job control: without it, the jobs and the tests' children would ignore Ctrl-C

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

own=$(version_of "${1:?usage: test-pythons.sh OWN_PYTHON [oldest] [--build]}")
logs=build/versions
export PIP_NO_COMPILE=1 # of 70 packages the tests import a part
rm -rf "$logs"
mkdir -p "$logs"

others=()
for python in $(.ci/pythons.sh); do
  [ "$(version_of "$python")" = "$own" ] || others+=("$python")
done
if [[ " $* " == *" oldest "* ]]; then
  others=("${others[@]:0:1}")
fi

names=()
for python in "${others[@]}"; do
  version=$(version_of "$python")
  echo "[versions] Python $version: environment"
  make --no-print-directory PYTHON="$python" VENV=".venv-$version" core-venv
  names+=("$version=$python")
done

[[ " $* " != *" --build "* ]] || exit 0

jobs=()
for name in "${names[@]}"; do
  version=${name%%=*}
  # CI's many examples are tried with our own Python.
  CI= make --no-print-directory PYTHON="${name#*=}" VENV=".venv-$version" \
    TEST_JOBS=$(("${#names[@]}" > 1 ? 2 : 3)) PYTEST_ARGS="-p no:cacheprovider ${PYTEST_ARGS:-}" test-core >"$logs/$version.log" 2>&1 </dev/null &
  jobs+=("$!")
done

failed=0
for i in "${!jobs[@]}"; do
  version=${names[$i]%%=*}
  status=0
  wait "${jobs[$i]}" || status=$?
  echo "[versions] Python $version"
  cat "$logs/$version.log"
  if [ "$status" -ne 0 ]; then
    echo "[versions] Python $version: FAILED with status $status"
    failed=1
  fi
done
exit "$failed"
