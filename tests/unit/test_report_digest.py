"""The digest of a run: its sums are those of the run, whatever the bins."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator._core import StepShape
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models import BasePerformanceModel
from llm_inference_simulator.report import digest as digest_module
from llm_inference_simulator.report import steps as steps_module
from llm_inference_simulator.report.digest import BINS_PER_DECADE, make_digest
from llm_inference_simulator.report.saved import DIGEST_KEY, Digest
from llm_inference_simulator.report.steps import StepBreakdown
from llm_inference_simulator.results import SimulationResult
from tests.report_runs import DISAGGREGATED, run

ROUNDED = 2e-5
"""Series are rounded to six digits."""


@pytest.fixture(scope="module")
def plain() -> SimulationResult:
    return run()


@pytest.fixture(scope="module")
def apart() -> SimulationResult:
    return run(DISAGGREGATED)


def total(values: list[float | None], bin_s: float) -> float:
    return sum(value or 0.0 for value in values) * bin_s


@pytest.mark.parametrize("which", ["plain", "apart"])
def test_series_integrate_to_the_totals_of_the_engines(
    which: str, request: pytest.FixtureRequest
) -> None:
    result: SimulationResult = request.getfixturevalue(which)
    over_time = Digest.parse(make_digest(result)).over_time
    first = 0
    for pool, setup in zip(over_time.pools, result.setup.pools, strict=True):
        engines = result.engines[first : first + setup.n_engines]
        first += setup.n_engines
        busy_s = total(list(pool.busy_share), over_time.bin_s) * setup.n_engines
        assert busy_s == pytest.approx(sum(e.busy_ns for e in engines) / 1e9, rel=ROUNDED)
        for name, expected in (
            ("prefill_tokens_per_s", sum(e.total.prefill_tokens for e in engines)),
            ("decode_tokens_per_s", sum(e.total.decode_seqs for e in engines)),
        ):
            assert total(getattr(pool, name), over_time.bin_s) == pytest.approx(
                expected, rel=ROUNDED, abs=1e-3
            )
        peak = max(e.peak_blocks for e in engines) / (setup.capacity.num_gpu_blocks - 1)
        known = [share for share in pool.kv_share if share is not None]
        assert 0 < max(known) <= peak * (1 + ROUNDED)


def test_running_sequences_integrate_to_the_time_of_the_steps(plain: SimulationResult) -> None:
    assert plain.steps is not None
    over_time = Digest.parse(make_digest(plain)).over_time
    steps = plain.steps
    expected = float((steps["running"] * (steps["end_ns"] - steps["start_ns"])).sum()) / 1e9
    running = total(list(over_time.pools[0].running), over_time.bin_s)
    assert running == pytest.approx(expected, rel=ROUNDED)


def test_distributions_hold_every_counted_request(plain: SimulationResult) -> None:
    digest = Digest.parse(make_digest(plain))
    for metric in ("ttft", "tpot", "e2el"):
        values = plain.requests[f"{metric}_ns"] / 1e6
        found = digest.distributions[metric]
        assert sum(found.counts) == len(values)
        assert found.values_ms[0] == pytest.approx(values.min(), rel=1e-5)
        assert found.values_ms[-1] == pytest.approx(values.max(), rel=1e-5)
        middle = found.quantiles.index(0.5)
        assert found.values_ms[middle] == pytest.approx(np.median(values), rel=1e-5)
        low = 10 ** (found.first_bin / BINS_PER_DECADE)
        high = 10 ** ((found.first_bin + len(found.counts)) / BINS_PER_DECADE)
        assert low <= values.min() <= values.max() <= high


def test_the_warm_up_is_left_out_of_distributions_and_slow_requests() -> None:
    result = run({"measurement": {"warm_up": 5.0}})
    digest = Digest.parse(make_digest(result))
    assert sum(digest.distributions["e2el"].counts) == result.window.counted.sum()
    assert min(each.arrival_s for each in digest.slowest) >= 5.0


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-20b", "gemma-3-27b"])
def test_components_of_every_step_sum_to_its_duration(model: str) -> None:
    result = run({"model": model})
    assert result.steps is not None
    breakdown = StepBreakdown(result, result.steps)
    durations = result.steps["end_ns"] - result.steps["start_ns"]
    for row in range(0, len(durations), 7):
        seconds = sum(part.seconds for part in breakdown.parts(row))
        assert seconds * 1e9 == pytest.approx(durations[row], abs=1.0)


def test_shares_of_components_are_those_of_all_steps(plain: SimulationResult) -> None:
    assert plain.steps is not None
    breakdown = StepBreakdown(plain, plain.steps)
    shares, provenance, looked_at = breakdown.shares(0)
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(provenance.values()) == pytest.approx(1)
    busy_s = plain.engines[0].busy_ns / 1e9
    attention = sum(
        part.seconds
        for row in range(len(plain.steps["engine"]))
        for part in breakdown.parts(row)
        if part.component == "attention_decode"
    )
    found = sum(share for (name, _), share in shares.items() if name == "attention_decode")
    every = looked_at == len(plain.steps["engine"])
    assert found == pytest.approx(attention / busy_s, rel=1e-6 if every else 0.02)


def test_a_sample_of_steps_is_close_to_all_of_them(
    plain: SimulationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain.steps is not None
    breakdown = StepBreakdown(plain, plain.steps)
    monkeypatch.setattr(steps_module, "MOST_SAMPLES", 10**9)
    every, _, n_steps = breakdown.shares(0)
    monkeypatch.setattr(steps_module, "MOST_SAMPLES", 300)
    sample, _, looked_at = breakdown.shares(0)
    assert looked_at <= 300 < n_steps
    for key in every:
        assert sample.get(key, 0.0) == pytest.approx(every[key], abs=0.02)


def test_slow_requests_are_the_slowest_and_their_phases_add_up(apart: SimulationResult) -> None:
    slowest = Digest.parse(make_digest(apart)).slowest
    e2el = apart.requests["e2el_ns"]
    assert [each.request for each in slowest] == np.argsort(-e2el, kind="stable")[:30].tolist()
    for each in slowest:
        parts = (
            each.queued_ms,
            each.prefill_ms,
            each.handover_ms,
            each.transfer_ms,
            each.decode_ms,
        )
        assert sum(parts) == pytest.approx(e2el[each.request] / 1e6, abs=1e-6)
        assert each.transfer_ms > 0


class Constant(BasePerformanceModel):
    def estimate_step_time(self, step: StepShape) -> float:
        return 0.01 if step.prefill_tokens else 0.005


def test_a_performance_model_without_components_leaves_them_out() -> None:
    config = SimulatorConfig.from_dict(
        {"model": "llama-7b", "xpu": "h100-sxm", "workload": {"num_prompts": 5}}
    )
    result = simulate(config, performance_model=Constant(), record_steps=True)
    assert make_digest(result)["components"] == []


def test_a_run_without_steps_says_what_to_do() -> None:
    config = SimulatorConfig.from_dict(
        {"model": "llama-7b", "xpu": "h100-sxm", "workload": {"num_prompts": 5}}
    )
    with pytest.raises(ConfigError, match="record_steps=True"):
        make_digest(simulate(config))


def test_a_digest_stays_small(plain: SimulationResult) -> None:
    text = json.dumps({DIGEST_KEY: make_digest(plain)}, separators=(",", ":"))
    assert len(text) < 60_000


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0.0, 4.0, 8.0)], [2.0, 2.0, 2.0, 2.0]),
        ([(0.5, 1.5, 1.0), (0.0, 4.0, 4.0)], [1.5, 1.5, 1.0, 1.0]),
        ([(2.0, 2.0, 5.0)], [0.0, 0.0, 0.0, 0.0]),
        ([], [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_amounts_spread_evenly_over_their_time(
    spans: list[tuple[float, float, float]], expected: list[float]
) -> None:
    start, end, amounts = (np.array([span[k] for span in spans]) for k in range(3))
    edges: Any = np.arange(5.0)
    assert digest_module._binned(start, end, amounts, edges).tolist() == pytest.approx(expected)
