"""The result JSON, tables and their refusal to write what cannot be read."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.results import SimulationResult, strict_json
from llm_inference_simulator.tables import check_table_path
from tests.fabricate import columns, engine, result

MS = 1_000_000

VLLM_KEYS = {
    "duration",
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
    "request_goodput",
    "output_throughput",
    "total_token_throughput",
} | {
    f"{statistic}_{metric}_ms"
    for statistic in ("mean", "median", "std", "p50", "p90", "p99")
    for metric in ("ttft", "tpot", "itl", "e2el")
}


def requests() -> dict[str, NDArray[Any]]:
    return columns(
        arrival_ns=[0, 100 * MS, 200 * MS],
        first_token_ns=[40 * MS, 190 * MS, -1],
        finished_ns=[240 * MS, 190 * MS, 200 * MS],
        prompt_tokens=[100, 50, 5000],
        output_tokens=[5, 1, 0],
        status=[1, 1, 2],
    )


def loaded(outcome: SimulationResult, path: Path, *, detailed: bool = False) -> dict[str, Any]:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    outcome.write_json(path, detailed=detailed)
    data: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return data


def test_summary_has_vllms_keys_at_the_top_and_ours_beside_them() -> None:
    summary = result(requests()).summary()
    assert set(summary) >= VLLM_KEYS
    assert summary["schema_version"] == 1
    assert summary["provenance"]["trace_hash"] == "0000000000000abc"
    assert summary["capacity"]["kv_cache_tokens"] == 16_000  # one block of 1,001 is the null block
    assert summary["measurement"]["counted"] == 3
    assert "input_lens" not in summary


def test_utilisation_is_a_share_of_engines_and_of_known_peaks() -> None:
    outcome = result(
        requests(),
        engines=[engine(busy_ns=120 * MS, operations=6e9, bytes=0.0), engine(busy_ns=60 * MS)],
        pool={"peak_flops": 1e12, "peak_bandwidth": None},
    )
    utilisation = outcome.summary()["utilisation"]
    assert utilisation["span_s"] == 0.24
    assert utilisation["engine_busy_share"] == pytest.approx(180 / 480)
    assert utilisation["mfu"] == pytest.approx(6e9 / (1e12 * 0.48))
    assert utilisation["memory_bandwidth_utilisation"] is None


def test_json_is_strict_and_its_config_runs_again(tmp_path: Path) -> None:
    config = {"workload": {"request_rate": math.inf}, "measurement": {"warm_up": 9.0}}
    outcome = result(requests(), config=config)
    data = loaded(outcome, tmp_path / "result.json")
    assert data["request_rate"] == "inf"
    assert data["mean_ttft_ms"] is None  # everything arrived in the warm-up
    assert data["duration"] == 0
    assert SimulatorConfig.from_dict(data["config"]) == outcome.config
    assert any("no request is counted" in warning for warning in data["warnings"])


def test_config_of_a_trace_runs_again() -> None:
    outcome = result(requests(), config={"workload": {"trace": "trace.csv"}})
    assert SimulatorConfig.from_dict(outcome.summary()["config"]) == outcome.config


def test_detailed_arrays_are_vllms_in_seconds(tmp_path: Path) -> None:
    data = loaded(result(requests()), tmp_path / "result.json", detailed=True)
    assert data["input_lens"] == [100, 50, 5000]
    assert data["output_lens"] == [5, 1, 0]
    assert data["ttfts"] == [0.04, 0.09, 0.0]
    assert data["itls"] == [[0.05, 0.05, 0.05, 0.05], [], []]
    assert data["start_times"] == [0.0, 0.1, 0.2]
    assert data["errors"] == ["", "", "rejected"]


def test_detailed_arrays_hold_counted_requests_only() -> None:
    outcome = result(requests(), config={"measurement": {"warm_up": 0.1}})
    assert outcome.detailed()["start_times"] == [0.1, 0.2]
    assert [gaps.tolist() for gaps in outcome.itls()] == [[], []]


def test_incomplete_results_say_so() -> None:
    partial = columns(
        arrival_ns=[0, 10 * MS], first_token_ns=[-1, -1], finished_ns=[-1, -1], status=[0, 0]
    )
    outcome = result(partial, complete=False, now_ns=20 * MS)
    assert outcome.summary()["complete"] is False
    assert outcome.warnings == (
        "interrupted at simulated time 0.020 s with 2 counted requests unanswered: the results "
        "are incomplete",
    )


def test_warnings_keep_those_of_the_setup_first() -> None:
    outcome = result(requests(), setup={"warnings": ("from the workload",)})
    assert outcome.warnings[0] == "from the workload"
    assert "rejected" in outcome.warnings[1]


def test_parquet_and_csv_hold_the_same_rows(tmp_path: Path) -> None:
    outcome = result(requests())
    outcome.write_requests(tmp_path / "r.parquet")
    outcome.write_requests(tmp_path / "r.csv")
    table = pyarrow.parquet.read_table(tmp_path / "r.parquet").to_pydict()
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table["ttft_ns"] == [40 * MS, 90 * MS, -1]
    assert table["status"] == [1, 1, 2]
    assert [int(row["ttft_ns"]) for row in rows] == table["ttft_ns"]
    assert [float(row["tpot_ns"]) for row in rows] == table["tpot_ns"]
    assert list(rows[0]) == list(table)
    assert {path.name for path in tmp_path.iterdir()} == {"r.parquet", "r.csv"}


def test_steps_are_written_only_when_recorded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="record_steps=True"):
        result(requests()).write_steps(tmp_path / "steps.csv")
    steps = {"engine": np.array([0, 0]), "start_ns": np.array([5, 9])}
    result(requests(), steps=steps).write_steps(tmp_path / "steps.csv")
    assert (tmp_path / "steps.csv").read_text() == "engine,start_ns\n0,5\n0,9\n"


@pytest.mark.parametrize("name", ["table.xlsx", "table", "table.parquet.gz"])
def test_unknown_table_formats_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--requests-output .*\.parquet or \.csv"):
        check_table_path(Path(name), "--requests-output")


def test_missing_libraries_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("pyarrow", "pandas", "polars"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=r"pip install 'llm-inference-simulator\[parquet\]'"):
        check_table_path(Path("t.parquet"), "--requests-output")
    with pytest.raises(ConfigError, match="pip install pandas"):
        result(requests()).to_pandas()
    with pytest.raises(ConfigError, match="pip install polars"):
        result(requests()).to_polars()


def test_to_arrow_has_a_column_per_key() -> None:
    outcome = result(requests())
    assert outcome.to_arrow().column_names == list(outcome.requests)


def test_strict_json_replaces_what_json_cannot_say() -> None:
    data = {"a": math.inf, "b": (-math.inf, math.nan), 1: [0.5]}
    assert strict_json(data) == {"a": "inf", "b": ["-inf", None], "1": [0.5]}
