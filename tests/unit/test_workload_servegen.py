"""ServeGen clients: rates and distributions from which requests are drawn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.traces import TraceLimits, load_trace
from llm_inference_simulator.workload.traces.servegen import sample

SECOND = 10**9
LENGTHS = {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{10: 1.0}"}
STEADY = "0,2,1.0,Gamma,1.0,0.5\n600,2,1.0,Gamma,1.0,0.5\n"


def client(folder: Path, number: int, trace: str, dataset: object = None) -> Path:
    path = folder / f"chunk-{number}-trace.csv"
    path.write_text(trace)
    data = {"0": LENGTHS} if dataset is None else dataset
    (folder / f"chunk-{number}-dataset.json").write_text(json.dumps(data))
    return path


def test_a_window_holds_its_rate_exactly(tmp_path: Path) -> None:
    trace = load_trace(client(tmp_path, 0, STEADY))
    assert trace.arrival_ns is not None
    assert len(trace) == 2 * 600 * 2
    assert trace.span_ns == 1200 * SECOND
    first_half = trace.arrival_ns < 600 * SECOND
    assert first_half.sum() == 1200
    assert (np.diff(trace.arrival_ns) >= 0).all()
    # 2,400 draws of which three quarters are 200: 1,800 give or take 21.
    assert (trace.prompt_tokens == 200).sum() == pytest.approx(1800, abs=90)
    assert set(trace.prompt_tokens.tolist()) == {100, 200}
    assert set(trace.output_tokens.tolist()) == {10}


@pytest.mark.parametrize(
    ("pattern", "shape", "cv"),
    # Gamma: 1 / sqrt(shape). Weibull 0.5: sqrt(G(5) / G(3)^2 - 1) = sqrt(24 / 4 - 1).
    [("Gamma", 0.25, 2.0), ("Weibull", 0.5, 5**0.5)],
)
def test_gaps_follow_the_pattern(tmp_path: Path, pattern: str, shape: float, cv: float) -> None:
    trace = load_trace(client(tmp_path, 0, f"0,200,1,{pattern},{shape},1\n"))
    assert trace.arrival_ns is not None
    gaps = np.diff(trace.arrival_ns)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_idle_windows_and_fractions_of_a_request(tmp_path: Path) -> None:
    # 0.0025 requests/s over 600 s are 1.5 requests: 1 or 2, each half of the time.
    windows = "".join(f"{600 * i},0.0025,1,Gamma,1,400\n" for i in range(400))
    trace = load_trace(client(tmp_path, 0, windows + "240000,,,,,\n"))
    assert len(trace) == pytest.approx(600, abs=40)


def test_a_folder_adds_its_clients_up(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        client(tmp_path, number, STEADY)
    trace = load_trace(tmp_path)
    assert len(trace) == 3 * 2400
    assert trace.arrival_ns is not None
    assert len(np.unique(trace.arrival_ns)) > 7000  # the clients' streams differ


def test_limits_cut_the_drawing_and_change_nothing_else(tmp_path: Path) -> None:
    client(tmp_path, 0, "".join(f"{600 * i},2,1,Weibull,0.8,0.4\n" for i in range(10)))
    whole = load_trace(tmp_path)
    assert whole.arrival_ns is not None
    for limits in (TraceLimits(limit_ns=700 * SECOND), TraceLimits(limit_rows=1500)):
        part = load_trace(tmp_path, "servegen", limits)
        assert part.arrival_ns is not None
        assert len(part) == 2400
        assert part.arrival_ns.tolist() == whole.arrival_ns[:2400].tolist()
        assert part.prompt_tokens.tolist() == whole.prompt_tokens[:2400].tolist()
    other = load_trace(tmp_path, "servegen", TraceLimits(seed=1))
    assert other.arrival_ns is not None
    assert (other.arrival_ns != whole.arrival_ns).any()


def test_lengths_change_with_their_window(tmp_path: Path) -> None:
    later = {"input_tokens": "{7: 1.0}", "output_tokens": "{3: 0.5, 4: 0.5}"}
    empty = {"input_tokens": "{}", "output_tokens": "{}"}
    client(tmp_path, 0, STEADY, {"0": empty, "300": LENGTHS, "600": later})
    trace = load_trace(tmp_path)
    # The first window has no lengths yet; windows go by their start.
    assert len(trace) == 1200
    assert set(trace.prompt_tokens.tolist()) == {7}
    assert trace.warnings == (
        "1 windows have rates but no length distribution yet and were left out",
    )


def test_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "chunk-5-trace.csv.gz").write_bytes(gzip.compress(STEADY.encode()))
    data = json.dumps({"0": LENGTHS}).encode()
    (tmp_path / "chunk-5-dataset.json.gz").write_bytes(gzip.compress(data))
    assert len(load_trace(tmp_path)) == 2400


@pytest.mark.parametrize(
    ("trace", "dataset", "parts"),
    [
        ("0,2,1,Pareto,1,1\n", None, ["row 1", "pattern='Pareto'", "Gamma, Weibull"]),
        (STEADY + "1200,-2,1,Gamma,1,1\n", None, ["row 3", "rate='-2'"]),
        (STEADY + "1200,nan,1,Gamma,1,1\n", None, ["row 3", "rate='nan'"]),
        (STEADY + "1200,2,1,Gamma,0,1\n", None, ["row 3", "shape=0"]),
        (STEADY + "1200,2,1,Ga", None, ["row 3", "4 values", "cut short"]),
        (STEADY + "300,2,1,Gamma,1,1\n", None, ["row 3", "sort"]),
        ("0,1e9,1,Gamma,1,1\n", None, ["row 1", "rate=1000000000.0"]),
        ("0,,,,,\n", None, ["no request was drawn"]),
        (STEADY, [], ["dataset.json", "JSON object"]),
        (STEADY, {"x": LENGTHS}, ["window 'x'"]),
        (STEADY, {"0": {"text_tokens": "{1: 1}"}}, ["window 0", "input_tokens"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": "{1: 0.5}"}}, ["window 0", "sum to 0.5"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": "{1: -1, 2: 2}"}}, ["0 or more"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": "{1: NaN}"}}, ["input_tokens", "nan"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": "{-1: 1}"}}, ["input_tokens"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": "{1: 0."}}, ["input_tokens"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": "import os"}}, ["input_tokens"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": "{1: 'a'}"}}, ["input_tokens"]),
        (STEADY, {"0": {**LENGTHS, "input_tokens": {"1": 1}}}, ["input_tokens"]),
    ],
)
def test_bad_clients_are_named(
    tmp_path: Path, trace: str, dataset: object, parts: list[str]
) -> None:
    client(tmp_path, 0, trace, dataset)
    with pytest.raises(WorkloadError) as caught:
        load_trace(tmp_path)
    assert "chunk-0" in str(caught.value) or str(tmp_path) in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_client_needs_its_dataset(tmp_path: Path) -> None:
    path = client(tmp_path, 0, STEADY)
    (tmp_path / "chunk-0-dataset.json").unlink()
    with pytest.raises(WorkloadError, match=r"chunk-0-dataset\.json is missing"):
        load_trace(path)
    renamed = path.rename(tmp_path / "rates.csv")
    with pytest.raises(WorkloadError, match="must be called"):
        load_trace(renamed)


def test_folders_without_clients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="is a folder"):
        load_trace(tmp_path)
    with pytest.raises(WorkloadError, match=r"no chunk-N-trace\.csv"):
        sample(tmp_path, 0)
    client(tmp_path, 0, STEADY)
    with pytest.raises(WorkloadError, match="is a folder"):
        load_trace(tmp_path, "azure")


def test_too_many_requests_ask_for_a_limit(tmp_path: Path) -> None:
    client(tmp_path, 0, "".join(f"{600 * i},100000,1,Gamma,1,1\n" for i in range(10)))
    with pytest.raises(WorkloadError, match="give duration or num_prompts"):
        load_trace(tmp_path)
