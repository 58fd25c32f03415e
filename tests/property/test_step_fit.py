"""Machines with known parameters are recovered from noisy steps, or the fit refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_inference_simulator.calibration.step_data import MeasuredStep
from llm_inference_simulator.calibration.step_fit import fit_steps
from llm_inference_simulator.calibration.step_work import cost_vector, step_work
from llm_inference_simulator.errors import CalibrationError
from tests import synthetic_machines as synthetic

DESIGN = synthetic.PREFILLS + synthetic.DECODES

rates = st.fixed_dictionaries(
    {
        "prefill_effective_tflops": st.floats(200, 700),
        "prefill_effective_bandwidth_gbps": st.floats(1200, 3000),
        "decode_effective_tflops": st.floats(100, 250),
        "decode_effective_bandwidth_gbps": st.floats(1200, 3000),
        "prefill_attention_effective_tflops": st.floats(100, 500),
        "prefill_step_overhead_us": st.floats(200, 3000),
        "decode_step_overhead_us": st.floats(200, 3000),
        "sequence_overhead_us": st.floats(2, 40),
    }
)


@given(truth=rates)
@settings(max_examples=60)
def test_arrays_give_the_seconds_of_the_core(truth: dict[str, float]) -> None:
    model = synthetic.machine(**truth)
    work = step_work(DESIGN, synthetic.machine().breakdown_step)
    expected = [model.estimate_step_time(step.shape()) for step in DESIGN]
    found = work.seconds(cost_vector(model.parameters))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@given(truth=rates, seed=st.integers(0, 2**20))
@settings(max_examples=10, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_a_machine_with_little_noise_is_found(truth: dict[str, float], seed: int) -> None:
    model = synthetic.machine(**truth)
    steps = synthetic.measure(model, DESIGN, noise=1e-3, repeats=2, seed=seed)
    fit = fit_steps(steps, model.breakdown_step, bootstrap_samples=20)
    assert np.max(np.abs(fit.predicted_s / fit.measured_s - 1)) < 0.01
    for name in fit.intervals:
        true = truth.get(name, truth["decode_effective_tflops"])
        assert getattr(fit.parameters, name) == pytest.approx(true, rel=0.05), name


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = total = 0
    random = np.random.default_rng(5)
    for seed in range(16):
        truth = {
            "prefill_effective_tflops": random.uniform(200, 700),
            "decode_effective_bandwidth_gbps": random.uniform(1200, 3000),
            "decode_effective_tflops": random.uniform(100, 300),
            "prefill_step_overhead_us": random.uniform(200, 3000),
            "decode_step_overhead_us": random.uniform(200, 3000),
            "sequence_overhead_us": random.uniform(2, 40),
        }
        model = synthetic.machine(**truth)
        steps = synthetic.measure(model, DESIGN, noise=0.03, repeats=3, seed=seed)
        fit = fit_steps(steps, model.breakdown_step, bootstrap_samples=60, seed=seed)
        for name, value in truth.items():
            if name in fit.intervals:
                total += 1
                held += fit.intervals[name].low <= value <= fit.intervals[name].high
    assert total >= 64
    # 95 % intervals; of 80 draws fewer than 69 lie inside in one case of a thousand.
    assert held / total >= 0.86


def test_a_model_with_windows_is_fitted_by_what_its_layers_see() -> None:
    model = synthetic.machine("gemma-2-9b")
    assert model.attention_window is not None
    steps = synthetic.measure(model, DESIGN, noise=1e-3, repeats=2, seed=4)
    window = model.attention_window
    fit = fit_steps(steps, model.breakdown_step, window=window, bootstrap_samples=20)
    assert np.max(np.abs(fit.predicted_s / fit.measured_s - 1)) < 0.01
    blind = fit_steps(steps, model.breakdown_step, bootstrap_samples=20)
    assert np.max(np.abs(blind.predicted_s / blind.measured_s - 1)) > 0.05


def test_disturbed_steps_do_not_move_the_fit() -> None:
    model = synthetic.machine()
    steps = synthetic.measure(model, DESIGN, noise=0.01, repeats=3, seed=1)
    calm = fit_steps(steps, model.breakdown_step, bootstrap_samples=20)
    random = np.random.default_rng(0)
    disturbed = [
        dataclasses.replace(step, seconds=step.seconds * (200.0 if random.random() < 0.05 else 1))
        for step in steps
    ]
    moved = sum(a.seconds != b.seconds for a, b in zip(steps, disturbed, strict=True))
    fit = fit_steps(disturbed, model.breakdown_step, bootstrap_samples=20)
    assert fit.outliers.sum() == pytest.approx(moved, abs=2)
    for name in ("prefill_effective_tflops", "decode_effective_bandwidth_gbps"):
        assert getattr(fit.parameters, name) == pytest.approx(
            getattr(calm.parameters, name), rel=0.01
        )


@pytest.mark.parametrize(
    ("design", "message"),
    [
        (synthetic.DECODES, "no prefill steps"),
        (synthetic.PREFILLS, "no pure decode steps"),
        (
            [synthetic.prefill(1, 2), synthetic.prefill(1, 4), *synthetic.DECODES],
            "prefill_effective_tflops cannot be told",
        ),
        (
            [*synthetic.PREFILLS, synthetic.decode(1, 64), synthetic.decode(1, 65)],
            "decode_effective_bandwidth_gbps cannot be told",
        ),
    ],
)
def test_missing_regions_are_refused_with_what_to_measure(
    design: list[MeasuredStep], message: str
) -> None:
    model = synthetic.machine()
    steps = synthetic.measure(model, design, noise=0.01, repeats=3, seed=2)
    with pytest.raises(CalibrationError, match=message) as caught:
        fit_steps(steps, model.breakdown_step, bootstrap_samples=20)
    assert "measure" in str(caught.value)
    assert "tokens" in str(caught.value)


def test_what_small_batches_cannot_tell_is_assumed_and_said() -> None:
    model = synthetic.machine()
    design = synthetic.PREFILLS + [s for s in synthetic.DECODES if s.decode_seqs <= 16]
    steps = synthetic.measure(model, design, noise=0.01, repeats=3, seed=3)
    fit = fit_steps(steps, model.breakdown_step, bootstrap_samples=20)
    assert fit.assumed["decode_effective_tflops"] == "equal to prefill_effective_tflops"
    assert "decode_effective_tflops" not in fit.intervals
    assert any("decode steps of 64 requests" in warning for warning in fit.warnings)
    bound = {step.decode_seqs for step, c in zip(fit.steps, fit.compute_bound, strict=True) if c}
    assert bound == {0}, "only prefill is bound by arithmetic"
