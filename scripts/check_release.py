"""Refuse a release whose version, tag and changelog disagree.

    python3 scripts/check_release.py [v1.2.3]

Each version's section of CHANGELOG.md has a part "Affects results"; the newest is the one of
Cargo.toml. With a tag the version must be the tag's and no longer "unreleased".
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(cargo: str, changelog: str, tag: str | None) -> list[str]:
    """What is wrong; empty when the release can go out."""
    version = tomllib.loads(cargo)["workspace"]["package"]["version"]
    found = []
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    titles = [section.partition("\n")[0].strip() for section in sections]
    for title, section in zip(titles, sections, strict=True):
        if not re.search(r"^### Affects results$", section, re.MULTILINE):
            found.append(f"CHANGELOG.md: {title} has no section 'Affects results'")
    newest = titles[0].split()[0] if titles else "none"
    if newest != version:
        found.append(f"CHANGELOG.md: the newest version is {newest}, Cargo.toml has {version}")
    if tag is not None:
        if tag != f"v{version}":
            found.append(f"tag {tag} is not v{version}, the version of Cargo.toml")
        if titles and "unreleased" in titles[0]:
            found.append(f"CHANGELOG.md: {titles[0]}: put the date there")
    return found


def main(words: list[str]) -> int:
    """Print what is wrong and return the exit code."""
    found = problems(
        (ROOT / "Cargo.toml").read_text(encoding="utf-8"),
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        words[0] if words else None,
    )
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
