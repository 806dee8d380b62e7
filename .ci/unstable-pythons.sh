#!/usr/bin/env bash
# Build and test with Debian unstable's Pythons, newer than this machine's, in a chroot.
#
#   usage: unstable-pythons.sh [VERSION...]     (default: 3.14 3.15)
#
# Needs root and mmdebstrap. The chroot is kept in build/unstable for the next run.
set -euo pipefail

[ "$#" -gt 0 ] || set -- 3.14 3.15
root=$PWD/build/unstable
[ "$(id -u)" -eq 0 ] || { echo "a chroot needs root" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing; on Debian: apt-get install -y mmdebstrap" >&2; exit 2; }

packages=ca-certificates,g++,git,make
for version in "$@"; do packages+=",python$version,python$version-dev,python$version-venv"; done

if [ "$(cat "$root/.packages" 2>/dev/null)" != "$packages" ]; then
  echo "[unstable] creating a chroot with $packages"
  rm -rf --one-file-system "$root"
  mkdir -p "$root"
  # A mirror snapshot may be older than its release file allows.
  mmdebstrap --quiet --variant=minbase --include="$packages" \
    --aptopt='Acquire::Check-Valid-Until "false"' unstable "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
  echo "$packages" >"$root/.packages"
fi

# Use a private mount namespace: nothing stays mounted, however this ends.
exec unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
  root=$1
  shift
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  ln -sf pts/ptmx "$root/dev/ptmx"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$file" ]; then cp -L "$file" "$root$file"; fi
  done
  rm -rf "$root/src"
  mkdir "$root/src"
  git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - | tar -xf - -C "$root/src"
  failed=0
  for version in "$@"; do
    echo "[unstable] Python $version"
    # Drop this user'"'"'s pip settings: their local folders do not exist in the chroot.
    env -u PIP_FIND_LINKS -u PIP_CONSTRAINT HOME=/root LC_ALL=C.UTF-8 chroot "$root" \
      make --no-print-directory -C /src PYTHON="python$version" VENV="/venv-$version" \
      PYTEST_ARGS="-p no:cacheprovider ${PYTEST_ARGS:-}" test-core </dev/null || failed=1
  done
  exit "$failed"
' unstable-pythons "$root" "$@"
