"""Commands of the documents: fenced blocks, and what the comment before one says of running it.

A block in ``sh``, ``console`` or ``python`` is run. A comment right before it may say

    <!-- run: skip because … -->          (needs a GPU, the network, …)
    <!-- run: slow because … -->          (in `make test-slow`)
    <!-- run: with --num-prompts 20 because … -->   (added to each simulator command)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGUAGES = ("sh", "console", "python")
_FENCE = re.compile(
    r"^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE
)
_MARKER = re.compile(
    r"<!-- run: (?P<what>skip|slow|with (?P<flags>.+?)) because (?P<reason>\S.{9,}?) -->\s*\Z",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str
    what: str
    """run, skip, slow, or with."""
    flags: str = ""
    """Added to each simulator command."""

    @property
    def name(self) -> str:
        """Document and line, for test ids and messages."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """What a newcomer reads and types."""
    return [
        ROOT / "README.md",
        ROOT / "docs" / "index.md",
        *sorted((ROOT / "docs/guides").glob("*.md")),
    ]


def blocks(document: Path) -> list[Block]:
    """Blocks in the languages that are run; ``ValueError`` for a marker without what or why."""
    text = document.read_text(encoding="utf-8")
    found = []
    end = 0
    for match in _FENCE.finditer(text):
        before, end = text[end : match.start()], match.end()
        line = text[: match.start()].count("\n") + 1
        marker = _MARKER.search(before)
        if marker is None and re.search(r"<!--\s*run\b[^>]*-->\s*\Z", before):
            raise ValueError(f"{document.name}:{line}: not a marker: {before[-120:].strip()!r}")
        if match["language"] in LANGUAGES:
            what = marker["what"].split()[0] if marker else "run"
            flags = (marker["flags"] or "") if marker else ""
            found.append(Block(document, line, match["language"], match["text"], what, flags))
    return found


def console_commands(text: str) -> list[tuple[str, str]]:
    """(command, output) of a console block: commands follow ``$ ``, continued by ``> ``."""
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            pairs.append((line[2:], ""))
        elif line.startswith("> ") and pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0] + "\n" + line[2:], "")
        elif pairs:
            pairs[-1] = (pairs[-1][0], pairs[-1][1] + line + "\n")
    return pairs


def matches(expected: str, printed: str) -> bool:
    """Whether ``printed`` is ``expected``, in which a line ``…`` stands for any lines."""
    parts = re.split(r"^…$\n?", expected, flags=re.MULTILINE)
    pattern = "(?:.*\n)*?".join(re.escape(part) for part in parts)
    return re.fullmatch(pattern, printed) is not None
