#!/usr/bin/env bash
# Smoke-test the wheel for this machine, of those in a folder, on every Python that it is for.
set -euo pipefail
cd "$(dirname "$0")/.."
shopt -s nullglob
wheels=("${1:-dist}"/*abi3*"$(uname -m)".whl)
if [ "${#wheels[@]}" != 1 ]; then
    echo "expected one abi3 wheel for $(uname -m) in ${1:-dist}, found ${#wheels[@]}" >&2
    exit 1
fi
mapfile -t pythons < <(bash scripts/pythons.sh)
if [ "${#pythons[@]}" = 0 ]; then
    echo "no CPython 3.11 or newer with its venv module was found" >&2
    exit 1
fi
for python in "${pythons[@]}"; do
    echo "== $("$python" -V) ($python)"
    PYTHON="$python" bash scripts/smoke.sh "${wheels[0]}"
done
echo "${wheels[0]}: ${#pythons[@]} versions of Python passed"
