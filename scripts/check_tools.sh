#!/usr/bin/env bash
# Name every missing tool, and how to get it, before anything is built.
set -u
python=${PYTHON:-python3}
missing=0

need() { # what, how to get it
    printf 'missing: %s\n  get it: %s\n' "$1" "$2" >&2
    missing=1
}

if ! command -v "$python" >/dev/null; then
    need "Python 3.11 or newer ($python)" "install python3 with your package manager, or: make PYTHON=/path/to/python"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    need "Python 3.11 or newer ($python is $("$python" -V 2>&1))" "install a newer Python, or: make PYTHON=/path/to/python"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    need "Python's venv module" "on Debian and Ubuntu: apt install python3-venv"
fi
if ! command -v cargo >/dev/null; then
    need "Rust 1.88 or newer (cargo)" "install it with rustup (rustup.rs)"
else
    version=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n1.88.0\n' "$version" | sort -V | head -n1)" != 1.88.0 ]; then
        need "Rust 1.88 or newer (rustc is $version)" "rustup update stable"
    fi
fi
if ! command -v cc >/dev/null; then
    need "a C linker (cc)" "on Debian and Ubuntu: apt install gcc"
fi
exit "$missing"
