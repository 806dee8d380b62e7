#!/usr/bin/env bash
# Install the torch version of pyproject.toml's dev extra, as a CPU build if there is one.
#
#   usage: install-torch.sh VENV
#
# The default Linux wheel of torch includes gigabytes of CUDA libraries. Training a small
# model and running the tests need none of them, so a +cpu wheel is preferred. The default
# wheel is used if the index has no such build (on macOS the default is a CPU build) or if
# the machine has an NVIDIA GPU.
set -euo pipefail

venv=${1:?usage: install-torch.sh VENV}
spec=$(sed -n 's/^ *"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
[ -n "$spec" ] || { echo "[set-up] no torch==VERSION in pyproject.toml's dev extra" >&2; exit 1; }

pip() { "$venv/bin/python" -m pip "$@"; }
have=$("$venv/bin/python" -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' 2>/dev/null || true)
case "$have" in
  "$spec" | "$spec"+*) exit 0 ;;
esac

gpu=no
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then gpu=yes; fi
if [ "$gpu" = no ] && [ "$(uname -s)" = Linux ]; then
  echo "[set-up] installing $spec (CPU build)"
  if pip install -q --progress-bar off "$spec+cpu" >/dev/null 2>&1; then exit 0; fi
  echo "[set-up] no $spec+cpu in the configured package indexes; taking the default build." \
    "To avoid its size, add PyTorch's CPU index to pip's configuration."
fi
echo "[set-up] installing $spec"
pip install -q --progress-bar off "$spec"
