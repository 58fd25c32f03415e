"""Command lines of ``vllm bench serve`` as people have them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.vllm_words import config_from_vllm
from llm_inference_simulator.vllm_words.bench import ramp_stages
from llm_inference_simulator.workload import build_workload

MODEL = "meta-llama/Llama-3.1-8B"


def config_of(flags: str, **overrides: Any) -> SimulatorConfig:
    line = f"vllm bench serve --model {MODEL} {flags}"
    return config_from_vllm(None, line, xpu="h100-sxm", overrides=overrides)[0]


def refusal(flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(flags)
    assert str(caught.value).startswith("--from-vllm-bench: ")
    return str(caught.value)


def test_a_line_describes_a_load() -> None:
    config = config_of(
        "--backend openai-chat --endpoint /v1/chat/completions --dataset-name random "
        "--random-input-len 2048 --random-output-len 256 --random-range-ratio 0.2 "
        "--random-prefix-len 128 --request-rate 4 --burstiness 0.5 --max-concurrency 32 "
        "--num-prompts 64 --seed 3 --goodput ttft:500 tpot:50 --percentile-metrics ttft,tpot,itl "
        "--metric-percentiles 50,99.9 --save-result --ignore-eos --temperature 0"
    )
    load = config.workload
    assert (load.random_input_len, load.random_output_len) == (2048, 256)
    assert (load.random_range_ratio, load.random_prefix_len) == (0.2, 128)
    assert (load.request_rate, load.burstiness, load.max_concurrency) == (4.0, 0.5, 32)
    assert (load.num_prompts, config.seed) == (64, 3)
    assert config.measurement.goodput == {"ttft": 500.0, "tpot": 50.0}
    assert config.measurement.metric_percentiles == (50.0, 99.9)


def test_the_defaults_are_vllms() -> None:
    load = config_of("").workload
    workload = build_workload(load, 0)
    assert len(workload.arrival_ns) == 1000
    assert not workload.arrival_ns.any()
    assert set(workload.prompt_tokens) == {1024}
    assert set(workload.output_tokens) == {128}
    assert config_of("--request-rate inf").workload.request_rate == math.inf


def test_general_lengths_win_over_those_of_the_data_set() -> None:
    load = config_of("--random-input-len 10 --input-len 20 --output-len 30").workload
    assert (load.random_input_len, load.random_output_len) == (20, 30)
    both = config_of('--random-range-ratio \'{"input": 0.5, "output": 0.5}\'').workload
    assert both.random_range_ratio == 0.5


def test_repeated_prefixes() -> None:
    load = config_of(
        "--dataset-name prefix_repetition --num-prompts 105 --prefix-repetition-num-prefixes 10 "
        "--prefix-repetition-prefix-len 512 --prefix-repetition-suffix-len 64 --output-len 32"
    ).workload
    assert (load.num_prompts, load.random_num_prefixes) == (100, 10)
    assert (load.random_prefix_len, load.random_input_len, load.random_output_len) == (512, 64, 32)


def write_sharegpt(path: Path) -> None:
    turns = [{"from": "human", "value": "word " * 40}, {"from": "gpt", "value": "word " * 60}]
    path.write_text(json.dumps([{"conversations": turns}] * 20))


def test_recorded_lengths(tmp_path: Path) -> None:
    file = tmp_path / "sharegpt.json"
    write_sharegpt(file)
    load = config_of(
        f"--dataset-name sharegpt --dataset-path {file} --request-rate 2 --random-input-len 9"
    ).workload
    assert (load.lengths_from, load.trace_format) == (str(file), "sharegpt")
    workload = build_workload(load, 0)
    assert len(workload.arrival_ns) == 1000
    assert set(workload.prompt_tokens) == {50}


def test_burstgpt_must_hold_the_rows_that_vllm_uses(tmp_path: Path) -> None:
    file = tmp_path / "burst.csv"
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    gpt_4 = "5,GPT-4,100,20,120,Conversation log\n"
    file.write_text(head + gpt_4 * 3)
    flags = f"--dataset-name burstgpt --dataset-path {file}"
    assert config_of(flags).workload.lengths_from == str(file)
    file.write_text(head + gpt_4 + gpt_4.replace("GPT-4", "ChatGPT"))
    assert "vLLM uses those of GPT-4" in refusal(flags)


def test_a_timed_trace_keeps_its_times(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    rows = [{"timestamp": t, "input_length": 32, "output_length": 4} for t in (0, 2, 5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = f"--dataset-name timed_trace --dataset-path {file} --request-rate 7"
    seconds = build_workload(config_of(flags).workload, 0).arrival_ns / 1e9
    assert seconds.tolist() == pytest.approx([0, 2, 5])
    milli = config_of(f"{flags} --timed-trace-sec-multiplier 0.001").workload
    assert (build_workload(milli, 0).arrival_ns / 1e9).tolist() == pytest.approx([0, 0.002, 0.005])
    loose = config_of(f"{flags} --no-self-timed").workload
    assert (loose.trace, loose.lengths_from, loose.request_rate) == (None, str(file), 7.0)


@pytest.mark.parametrize("strategy", ["linear", "exponential"])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_a_ramp_lasts_as_long_as_its_mean_gaps(strategy: str, count: int) -> None:
    stages = ramp_stages(strategy, 2, 20, count)
    rates = [rate for rate, _ in stages]
    assert rates == sorted(rates)
    assert 2 <= rates[0] <= rates[-1] <= 20.0 + 1e-9
    # All but the last stage, which goes on, hold their share of the requests.
    assert all(
        rate * seconds == pytest.approx(count / len(stages), abs=1) for rate, seconds in stages[:-1]
    )


def test_a_ramp_sends_every_request() -> None:
    load = config_of(
        "--num-prompts 500 --ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 9"
    ).workload
    arrivals = build_workload(load, 0).arrival_ns / 1e9
    assert len(arrivals) == 500
    # The mean of the sum of all gaps: 499 / 8 * ln 9 seconds, within five deviations.
    expected = 499 / 8 * math.log(9)
    assert arrivals[-1] == pytest.approx(expected, abs=5 * math.sqrt(499 / 9))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--dataset-name hf --dataset-path x", "--dataset-name hf is refused"),
        ("--dataset-name custom --dataset-path x.jsonl", "--save-result --save-detailed"),
        ("--dataset-name sharegtp", "did you mean 'sharegpt'?"),
        ("--dataset-name sharegpt", "needs --dataset-path FILE"),
        ("--dataset-path x.json", "has no meaning for random requests"),
        ("--request-rte 4", "did you mean '--request-rate'?"),
        ("stray", "unexpected word 'stray'"),
        ("--backend openai-embeddings", "--backend openai-embeddings is refused"),
        ("--use-beam-search", "--use-beam-search is refused"),
        ("--logprobs 5", "--logprobs 5 is refused"),
        ("--repetition-penalty 1.1", "--repetition-penalty 1.1 is refused"),
        ("--extra-body.min_tokens 5", "--extra-body min_tokens is refused"),
        ("--ramp-up-strategy linear", "needs --ramp-up-start-rps and --ramp-up-end-rps"),
        (
            "--ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 2 --request-rate 4",
            "leave one out",
        ),
        ("--metric-percentiles high", "--metric-percentiles: 'high' is not a list"),
        ("--random-range-ratio x", "is neither a number"),
        ('--random-range-ratio \'{"input": 0.1, "output": 0.2}\'', "share one ratio"),
        ("--probe-request-rate 1", "--probe-request-rate 1.0 is refused"),
        ("--dataset-name prefix_repetition --num-prompts 5", "each prefix needs a prompt"),
    ],
)
def test_bad_lines_get_one_clear_message(flags: str, says: str) -> None:
    assert says in refusal(flags)


def test_penalties_and_bodies_that_change_nothing() -> None:
    config = config_of(
        "--repetition-penalty 1 --presence-penalty 0 --extra-body.ignore_eos true --probe-req 0"
    )
    assert config.engine.generation_config == "vllm"


def test_both_lines_together_and_our_flags_over_them(tmp_path: Path) -> None:
    result = tmp_path / "r.json"
    words = [
        *("--from-vllm", "vllm serve llama-3.1-8b -tp 2 --max-num-seqs 32 --port 80"),
        *("--from-vllm-bench", "vllm bench serve --model other/name --request-rate 9 --port 80"),
        *("--xpu", "h100-sxm", "--rate-stages", "5:2", "--random-output-len", "4"),
        *("--quiet", "--output", str(result)),
    ]
    assert main(words) == 0
    data = json.loads(result.read_text())
    assert data["config"]["model"] == "llama-3.1-8b"
    assert data["config"]["workload"]["request_rate"] is None
    assert data["config"]["workload"]["rate_stages"] == [[5.0, 2.0]]
    assert data["provenance"]["from_vllm"]["ignored"] == ["--port"]
    assert "workload.request_rate" not in data["provenance"]["from_vllm"]["taken"]


def test_another_source_of_lengths_takes_the_place_of_the_lines() -> None:
    config = config_of(
        "--random-input-len 99 --request-rate 4", **{"workload.trace": "azure-conv-2023"}
    )
    assert config.workload.random_input_len == 1024
    assert config.workload.request_rate == 4.0


def test_a_line_of_another_program_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from-vllm-bench", "vllm bench latency", "--xpu", "h100-sxm"]) == 2
    assert "is not a command line of vllm bench serve" in capsys.readouterr().err
