"""The page of benchmarks is filled by running its commands."""

from __future__ import annotations

import shlex

from benchmarks.performance_page import PAGE, ROOT, filled


def test_blocks_are_replaced_by_the_output_of_their_commands() -> None:
    page = (
        "text\n<!-- output of: python a.py -->\n```text\nold\n```\nmore\n"
        "<!-- output of: python b.py --x 1 -->\n```text\n```\n```text\nnot this one\n```\n"
    )
    assert filled(page, lambda command: f"\n{command}!\n\n") == (
        "text\n<!-- output of: python a.py -->\n```text\npython a.py!\n```\nmore\n"
        "<!-- output of: python b.py --x 1 -->\n```text\npython b.py --x 1!\n```\n"
        "```text\nnot this one\n```\n"
    )


def test_the_page_asks_for_programs_that_exist() -> None:
    commands: list[str] = []

    def note(command: str) -> str:
        commands.append(command)
        return ""

    filled(PAGE.read_text(encoding="utf-8"), note)
    assert len(commands) >= 3
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "python"
        home = words[2].replace(".", "/") if words[1] == "-m" else words[1].removesuffix(".py")
        assert (ROOT / f"{home}.py").is_file() or (ROOT / home / "__main__.py").is_file(), command
