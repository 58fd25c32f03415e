#!/usr/bin/env bash
# Print one interpreter for each CPython version of this machine that the wheel is for: 3.11 and newer,
# the default build. Looked for on the path, under pyenv and under uv.
set -uo pipefail

candidates() {
    compgen -c python3 | grep -xE 'python3(\.[0-9]+)?' | sort -u | while read -r name; do
        type -ap "$name"
    done
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python 2>/dev/null
    ls -d "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-*/bin/python 2>/dev/null
}

describe='
import sys, sysconfig, venv, ensurepip
usable = sys.implementation.name == "cpython" and sys.version_info[:2] >= (3, 11)
if usable and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("%d.%d" % sys.version_info[:2], sys.executable)
'
candidates | while read -r python; do
    "$python" -c "$describe" 2>/dev/null
done | sort -t. -k1,1n -k2,2n -s | awk '!seen[$1]++ {print $2}'
