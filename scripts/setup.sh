#!/usr/bin/env bash
# Creates .venv with the versions of constraints.txt. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum)
if [ -x .venv/bin/python ] && [ "$(cat .venv/.ready 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

python=""
for name in ${PYTHON3:-} python3.13 python3.12 python3.11 python3 python; do
  if command -v "$name" >/dev/null 2>&1 &&
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(command -v "$name")
    break
  fi
done
if [ -z "$python" ]; then
  echo "error: Python 3.11 or newer is needed and was not found; install it, or set PYTHON3=/path/to/python" >&2
  exit 2
fi

rm -f .venv/.ready
if ! [ -x .venv/bin/python ]; then
  "$python" -m venv .venv || {
    rm -rf .venv
    echo "error: $python cannot make virtual environments; install its venv module (Debian: python3-venv)" >&2
    exit 2
  }
fi
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  # An environment made by uv has no pip.
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
  .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
  uv=.venv/bin/uv
fi
echo "installing dependencies into .venv (about 120 packages, several GB where torch comes with CUDA)" >&2
"$uv" pip install --python .venv/bin/python --compile-bytecode --constraint constraints.txt \
  --editable '.[experiments,export,dev,docs]'
printf '%s' "$wanted" >.venv/.ready
