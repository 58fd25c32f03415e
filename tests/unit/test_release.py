"""A release: its workflow is sound, and version, tag and changelog must agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CARGO = '[workspace.package]\nversion = "1.2.3"\n'
CHANGELOG = "# Changelog\n\n## 1.2.3 (2026-11-24)\n\n- New.\n\n### Affects results\n\nNothing.\n"


@pytest.fixture(scope="module")
def check_release() -> ModuleType:
    path = ROOT / "scripts" / "check_release.py"
    spec = importlib.util.spec_from_file_location("check_release", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_version_has_its_section(check_release: Any) -> None:
    assert check_release.main([]) == 0


def test_a_tag_must_be_the_version(check_release: Any) -> None:
    assert check_release.problems(CARGO, CHANGELOG, "v1.2.3") == []
    assert check_release.problems(CARGO, CHANGELOG, "v1.2.4") == [
        "tag v1.2.4 is not v1.2.3, the version of Cargo.toml"
    ]
    open_ended = CHANGELOG.replace("2026-11-24", "unreleased")
    assert check_release.problems(CARGO, open_ended, None) == []
    assert "put the date there" in check_release.problems(CARGO, open_ended, "v1.2.3")[0]


def test_every_version_says_what_affects_results(check_release: Any) -> None:
    old = CHANGELOG + "\n## 1.2.2\n\n- Old.\n"
    assert check_release.problems(CARGO, old, None) == [
        "CHANGELOG.md: 1.2.2 has no section 'Affects results'"
    ]
    assert check_release.problems(CARGO, "# Changelog\n", None) == [
        "CHANGELOG.md: the newest version is none, Cargo.toml has 1.2.3"
    ]


def workflow(name: str) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return content


def test_the_release_builds_for_every_platform_and_only_then_publishes() -> None:
    jobs = workflow("release.yml")["jobs"]
    built = {(row["os"], row["target"]) for row in jobs["wheels"]["strategy"]["matrix"]["include"]}
    assert {("linux", "x86_64"), ("linux", "aarch64")} <= built
    assert {os for os, _ in built} == {"linux", "macos", "windows"}
    publish = jobs["publish"]
    assert set(publish["needs"]) == {"wheels", "sdist"}
    assert publish["permissions"]["id-token"] == "write"
    assert publish["environment"] == "release"
    assert "tag" in publish["if"]


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_workflows_call_scripts_that_are_there(name: str) -> None:
    content = workflow(name)
    assert content["permissions"] == {"contents": "read"}
    commands = [
        step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert commands
    for command in commands:
        for word in command.split():
            if word.startswith(("scripts/", ".ci/")):
                assert (ROOT / word).is_file(), word
