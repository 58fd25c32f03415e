"""An environment of its own for each peer: no peer's dependencies meet another's or ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".venv-peers"


class UnavailableError(Exception):
    """A peer cannot be installed or run here; the message says why."""


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The Python of environment ``name`` with ``requirements`` installed, made if it is missing.

    Raises :class:`UnavailableError` with pip's last words.
    """
    folder = FOLDER / name
    python = folder / "bin/python"
    installed = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if installed.exists() and installed.read_text() == wanted:
        return python
    print(f"installing {' '.join(requirements)} into {folder.relative_to(FOLDER.parent)} ...")
    venv.EnvBuilder(clear=True, with_pip=True).create(folder)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--only-binary=:all:", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["pip said nothing"]
        version = ".".join(map(str, sys.version_info[:2]))
        raise UnavailableError(f"pip with Python {version} could not install it: {words[-1]}")
    installed.write_text(wanted)
    return python
