"""Fill docs/performance.md with what its commands print now: ``make bench-page``.

Each block of output on the page follows a comment ``<!-- output of: COMMAND -->``. The commands are
run in turn from the root of the repository and their blocks replaced, all or none.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from llm_inference_simulator.files import atomic_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
_BLOCK = re.compile(r"<!-- output of: (?P<command>[^\n]+) -->\n```text\n.*?```\n", re.DOTALL)


def filled(page: str, output_of: Callable[[str], str]) -> str:
    """The page with every block replaced by the output of its command."""

    def block(found: re.Match[str]) -> str:
        command = found["command"]
        return f"<!-- output of: {command} -->\n```text\n{output_of(command).strip()}\n```\n"

    return _BLOCK.sub(block, page)


def run(command: str) -> str:
    """What a command prints; ``python`` is this one."""
    print(f"$ {command}", file=sys.stderr, flush=True)
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def main() -> None:
    """Run all commands and write the page."""
    page = filled(PAGE.read_text(encoding="utf-8"), run)
    with atomic_text(PAGE) as file:
        file.write(page)


if __name__ == "__main__":
    main()
