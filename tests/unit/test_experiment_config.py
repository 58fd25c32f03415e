"""Plans stay within the engine's limits and cover what a calibration needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_benchmarks.__main__ import main as commands
from vllm_benchmarks.calibrate import main
from vllm_benchmarks.experiment_config import ExperimentConfig

LIMITS: dict[str, Any] = {
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
    "max_model_len": 8192,
    "kv_cache_tokens": 131_072,
}


@given(
    limits=st.fixed_dictionaries(
        {
            "max_num_seqs": st.integers(1, 1024),
            "max_num_batched_tokens": st.integers(1, 32768),
            "max_model_len": st.integers(64, 131_072),
            "kv_cache_tokens": st.integers(64, 10**7),
        }
    ),
    sparse=st.booleans(),
    sampling=st.sampled_from(["sobol", "latin_hypercube"]),
    seed=st.integers(0, 100),
)
@settings(max_examples=60)
def test_every_point_fits_the_engine(
    limits: dict[str, Any], sparse: bool, sampling: Any, seed: int
) -> None:
    config = ExperimentConfig(**limits, sparse=sparse, sampling=sampling, seed=seed)
    plan = config.plan()
    assert len(plan) == len(set(plan))
    assert plan == ExperimentConfig(**limits, sparse=sparse, sampling=sampling, seed=seed).plan()
    for point in plan:
        decoding = 0 if point.kind == "prefill" else point.batch_size
        prompts = point.prompt_tokens * (point.batch_size if point.kind == "prefill" else 1)
        assert decoding + prompts <= limits["max_num_batched_tokens"]
        assert point.batch_size <= limits["max_num_seqs"]
        assert point.context_tokens + point.prompt_tokens < limits["max_model_len"]
        assert point.batch_size * point.context_tokens < limits["kv_cache_tokens"]


def test_sparse_plans_are_smaller_and_reach_as_far() -> None:
    full = ExperimentConfig(**LIMITS).plan()
    sparse = ExperimentConfig(**LIMITS, sparse=True).plan()
    assert len(sparse) < 0.7 * len(full)
    for kind in ("prefill", "decode", "mixed"):
        assert sum(point.kind == kind for point in sparse) >= 3
    for plan in (full, sparse):
        assert max(p.prompt_tokens for p in plan if p.kind == "prefill") == 2048
        assert min(p.prompt_tokens for p in plan if p.kind == "prefill") == 16
        assert {1, 64} <= {p.batch_size for p in plan if p.kind == "decode"}
        assert max(p.context_tokens for p in plan if p.kind == "decode") == 4096


def test_a_dry_run_needs_no_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--model", "llama-7b", "--sparse", "--dry-run"]
    output = ["--output", str(tmp_path / "no" / "where.json")]
    assert main([*words, "--xpu", "gb10", *output]) == 0
    *points, total = capsys.readouterr().out.splitlines()
    assert total.startswith(f"{len(points)} points, 3 repeats each, about ")
    assert commands(["calibrate", *words, "--xpu", "cpu", *output]) == 0
    assert "not known for xpu=cpu" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_without_vllm_one_message_names_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    output = tmp_path / "calibration.json"
    words = ["--model", "llama-7b", "--xpu", "gb10", "--sparse", "--output", str(output)]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pip install vllm" in told
    assert "--runner server --base-url" in told
    assert "llm_inference_simulator calibrate" in told
    assert not output.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sparce"], "did you mean '--sparse'"),
        (["--repeats", "0"], "'0' must be a whole number, at least 1"),
        (["--runner", "file"], "invalid choice: 'file'"),
        (["--max-model-len", "64M"], "max_model_len"),
    ],
)
def test_bad_flags(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "llama-7b", "--xpu", "gb10", "--output", "x.json", *words]) == 2
    assert message in capsys.readouterr().err


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands([]) == 0
    assert "breakdown" in capsys.readouterr().out
    assert commands(["calibrat"]) == 2
    assert "did you mean 'calibrate'" in capsys.readouterr().err
