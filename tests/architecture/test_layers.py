"""Who may import whom: one way, from the command line down to the errors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "llm_inference_simulator"

LAYERS = [
    {"errors"},
    {"files"},
    {"sections", "order_statistics"},
    {"rate_schedule"},
    {"workload_config"},
    {"config"},
    {"catalog", "workload", "calibration", "_core", "cluster", "step_sums"},
    {"capacity", "capacity_remedies", "performance_models"},
    {
        "aggregated_cluster",
        "disaggregated_cluster",
        "metrics",
        "energy",
        "diagnostics",
        "tables",
        "decisions",
    },
    {"class_results", "expert_groups", "histograms"},
    {"queue_trend"},
    {"running_metrics"},
    {"results", "progress_bar", "streaming"},
    {"streamed_result"},
    {"pools"},
    {"shared_inputs"},
    {"simulation"},
    {"report"},
    {"many"},
    {"sweep"},
    {"plan"},
    {"validation", "calibrators"},
    {"cli", "vllm_words"},
]
"""From the bottom up: a room imports its own layer and those above it in this list."""


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py").removesuffix(".pyi")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "llm_inference_simulator":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("llm_inference_simulator."):
                rooms.add(name.split(".")[1])
            assert not name.startswith("vllm_benchmarks"), f"{path} imports vllm_benchmarks"
    return rooms


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def layer(room: str) -> int:
    found = [index for index, rooms in enumerate(LAYERS) if room in rooms]
    assert len(found) == 1, f"{room} has no place in LAYERS: give it one"
    return found[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room == "__main__":
        return
    for other in imported_rooms(path) - {"__version__"}:
        assert layer(other) <= layer(room), f"{path} imports {other} from a room above"


def test_the_reference_imports_nothing_of_ours() -> None:
    sources = list((ROOT / "tests" / "reference").rglob("*.py"))
    assert sources
    for path in sources:
        assert not imported_rooms(path)
        assert "llm_inference_simulator" not in path.read_text(encoding="utf-8")


RUST = ROOT / "rust_core" / "src"


def test_only_the_binding_knows_python() -> None:
    for path in RUST.rglob("*.rs"):
        if "python" in path.relative_to(RUST).parts:
            continue
        assert not re.search(r"\b(pyo3|numpy)::", path.read_text(encoding="utf-8")), path


RUST_LAYERS = [
    ["time", "error", "ids", "rng", "rows", "min_tree", "step_ends"],
    ["event", "config", "cost", "link", "shared_blocks"],
    ["workload", "kv_cache"],
    ["scheduler", "source"],
    ["recorder"],
    ["engine", "router", "replay", "token_gaps", "gap_histogram"],
    ["simulation"],
    ["python", "lib"],
]


@pytest.mark.parametrize(
    "path", sorted(RUST.rglob("*.rs")), ids=lambda path: str(path.relative_to(RUST))
)
def test_rust_modules_point_down(path: Path) -> None:
    places = {room: index for index, rooms in enumerate(RUST_LAYERS) for room in rooms}
    room = path.relative_to(RUST).parts[0].removesuffix(".rs")
    for other in re.findall(r"\bcrate::(\w+)", path.read_text(encoding="utf-8")):
        assert places[other] <= places[room], f"{path} uses {other} from a room above"
