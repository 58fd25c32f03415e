"""Output files: written whole or not at all, and never in place of a device or a link."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_text, check_writable
from llm_inference_simulator.tables import write_table
from tests.fabricate import columns


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def write(path: Path, text: str = "new") -> None:
    check_writable(path, "--output")
    with atomic_text(path) as file:
        file.write(text)


def write_and_fail(path: Path) -> None:
    with atomic_text(path) as file:
        file.write("half")
        raise KeyboardInterrupt


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write(path, "old")
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(path)
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "folder" / "target.json", tmp_path / "link.json"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to("folder/target.json")
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(tmp_path.rglob("*")) == sorted([target.parent, target, link])


def test_a_link_into_nowhere_or_in_a_circle_is_refused(tmp_path: Path) -> None:
    nowhere, circle = tmp_path / "nowhere.json", tmp_path / "circle.json"
    nowhere.symlink_to(tmp_path / "none" / "x.json")
    circle.symlink_to(circle)
    with pytest.raises(ConfigError, match=r"folder .*none does not exist"):
        check_writable(nowhere, "--output")
    with pytest.raises(ConfigError, match="leads in a circle"):
        check_writable(circle, "--output")


@pytest.mark.parametrize("linked", [False, True])
def test_a_fifo_is_written_straight(tmp_path: Path, fifo: Path, linked: bool) -> None:
    path = fifo
    if linked:
        path = tmp_path / "link"
        path.symlink_to(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()
    write(path)
    reader.join(timeout=10)
    assert read == ["new"]
    assert fifo.is_fifo()
    assert path.is_symlink() == linked


def test_a_fifo_takes_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pipe, copy = tmp_path / "pipe.parquet", tmp_path / "copy.parquet"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: copy.write_bytes(pipe.read_bytes()), daemon=True)
    reader.start()
    write_table(columns(arrival_ns=[1, 2]), pipe, "--requests-output")
    reader.join(timeout=10)
    assert pipe.is_fifo()
    assert parquet.read_table(copy).column("arrival_ns").to_pylist() == [1, 2]


def test_dev_stdout_is_written_straight() -> None:
    program = (
        "from pathlib import Path\n"
        "from llm_inference_simulator.files import atomic_text, check_writable, is_stream\n"
        "path = Path('/dev/stdout')\n"
        "assert is_stream(path)\n"
        "check_writable(path, '--output')\n"
        "with atomic_text(path) as file:\n"
        "    file.write('new')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"new"
