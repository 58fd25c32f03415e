"""Command lines of ``vllm serve`` as people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.vllm_words import config_from_vllm

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
SMALL = ["--num-prompts", "20", "--random-input-len", "64", "--random-output-len", "4"]


def config_of(line: str, **overrides: Any) -> SimulatorConfig:
    return config_from_vllm(line, xpu="h100-sxm", overrides=overrides)[0]


def refusal(line: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(line)
    return str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "vllm serve {} -tp 4 --max-num-seqs 64",
        "$(which vllm) serve {} -tp 4 --max-num-seqs 64".replace("$(which vllm)", "/usr/bin/vllm"),
        "vllm serve --model {} --tensor-parallel-size=4 --max_num_seqs 64",
        "vllm serve --tensor-parallel-size 4 {} --max-num-seqs=64",
        "vllm serve {} -tp=4 --max-num-seqs 8 --max-num-seqs 64",
        "vllm serve {} --tensor-parallel 4 --max-num-seq 64",
        "python -m vllm.entrypoints.openai.api_server --model {} -tp 4 --max-num-seqs 64",
        "python3 -m vllm.entrypoints.cli.main serve {} -tp 4 --max-num-seqs 64",
        "CUDA_VISIBLE_DEVICES=0,1,2,3 VLLM_USE_V1=1 uv run vllm serve {} -tp 4 --max-num-seqs 64",
        "nohup vllm serve {} -tp 4 --max-num-seqs 64 > server.log 2>&1 &",
        "vllm serve {} -tp 4 --max-num-seqs 64 2>&1 | tee server.log",
        "docker run --gpus all -p 8000:8000 -e HF_TOKEN=x vllm/vllm-openai:v0.32.0 --model {} -tp 4"
        " --max-num-seqs 64",
        "vllm serve {} \\\n    --tensor-parallel-size 4 \\\n    --max-num-seqs 64 \\\n",
    ],
)
def test_forms_of_one_line_say_the_same(line: str) -> None:
    config = config_of(line.format(MODEL))
    assert config.model == MODEL
    assert config.cluster.tensor_parallel_size == 4
    assert config.engine.max_num_seqs == 64


@pytest.mark.parametrize(
    ("flags", "place", "value"),
    [
        ("--max-model-len 32K", "max_model_len", 32768),
        ("--max-model-len 25.6k", "max_model_len", 25600),
        ("--max-model-len auto", "max_model_len", None),
        ("--max-model-len -1", "max_model_len", None),
        ("--max-num-batched-tokens 16K", "max_num_batched_tokens", 16384),
        ("--max-num-active-seqs 32", "max_batch_size", 32),
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-prefix-caching", "enable_prefix_caching", True),
        ("--no-async-scheduling", "async_scheduling", False),
        ("--dtype half", "dtype", "float16"),
        ("--kv-cache-dtype fp8_e4m3", "kv_cache_dtype", "fp8"),
        ("-q fp8", "quantization", "fp8"),
        ("--device-memory-utilization 0.8", "gpu_memory_utilization", 0.8),
        ("--scheduling-policy priority", "scheduling_policy", "priority"),
        ("--generation-config vllm", "generation_config", "vllm"),
        ("--override-generation-config '{\"temperature\": 0}'", "generation_config", "auto"),
        ("--override-generation-config.repetition_penalty 1", "generation_config", "vllm"),
        ("-ep", "enable_expert_parallel", True),
    ],
)
def test_a_flag_sets_what_it_names(flags: str, place: str, value: Any) -> None:
    assert getattr(config_of(f"vllm serve {MODEL} {flags}").engine, place) == value


@pytest.mark.parametrize(
    "flags",
    [
        "-O3",
        "-O 2",
        "-O=3",
        "--optimization-level 3",
        '--compilation-config \'{"cudagraph_mode": "FULL_AND_PIECEWISE", "mode": 3}\'',
        "--compilation-config.cache_dir /tmp/cache -cc.mode=3",
        "--host 0.0.0.0 --port 8000 --api-key a b --served-model-name x --chat-template t.jinja",
        "--cpu-offload-gb 0 --no-enable-lora --attention-backend auto --stream-interval 1",
        "--no-enforce-eager --enable-flashinfer-autotune --decode-context-parallel-size 1",
        "--limit-mm-per-prompt '{\"image\": 2}' --tool-call-parser hermes -dpl 1",
        "--disable-log-requests --swap-space 4 --trust-remote-code --seed 7",
    ],
)
def test_what_changes_no_times_is_ignored(flags: str) -> None:
    plain, _ = config_from_vllm(f"vllm serve {MODEL}", xpu="h100-sxm")
    config, lines = config_from_vllm(f"vllm serve {MODEL} {flags}", xpu="h100-sxm")
    assert config == plain
    assert lines.ignored


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ('--speculative-config \'{"method": "ngram"}\'', "--speculative-config"),
        ("-sc.method=ngram", "--speculative-config"),
        ("--enable-lora", "--enable-lora"),
        ("--lora-modules a=b", "--lora-modules a=b"),
        ("--enforce-eager", "--enforce-eager"),
        ("-O0", "-O 0"),
        ("-cc.cudagraph_mode=NONE", "--compilation-config.cudagraph_mode NONE"),
        ("--attention-backend FLASHINFER", "--attention-backend FLASHINFER"),
        ("--no-swa-bounded-replay", "--no-swa-bounded-replay"),
        ("--cpu-offload-gb 10", "--cpu-offload-gb 10"),
        ("-dcp 2", "--decode-context-parallel-size 2"),
        ("--dtype float32", "--dtype float32"),
        ("--kv-cache-dtype nvfp4", "--kv-cache-dtype nvfp4"),
        ("--quantization bitsandbytes", "--quantization bitsandbytes"),
        ("--performance-mode interactivity", "--performance-mode interactivity"),
        ("--kv-transfer-config '{}'", "--kv-transfer-config"),
        ("--limit-mm-per-prompt.image 0", "--limit-mm-per-prompt"),
        ("--override-generation-config.presence_penalty 1", "presence_penalty"),
        ("--max-num-queued-reqs 100", "--max-num-queued-reqs 100"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(flags: str, named: str) -> None:
    message = refusal(f"vllm serve {MODEL} {flags}")
    assert message.startswith("--from-vllm: ")
    assert named in message
    assert "is refused: " in message


def test_environment_that_chooses_kernels_is_refused() -> None:
    message = refusal(f"VLLM_ATTENTION_BACKEND=FLASHINFER vllm serve {MODEL}")
    assert message.startswith("--from-vllm: VLLM_ATTENTION_BACKEND=FLASHINFER is refused: ")
    assert "VLLM_USE_V1=0 is refused: V0 is gone" in refusal(f"VLLM_USE_V1=0 vllm serve {MODEL}")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            f"vllm serve {MODEL} --max-num-seq-s 4",
            "unknown flag of vLLM '--max-num-seq-s'; did you mean '--max-num-seqs'?",
        ),
        (f"vllm serve {MODEL} --max-num-seqs 1K", "'1K' is not a whole number"),
        (f"vllm serve {MODEL} --max-num-seqs", "expected one argument"),
        (f"vllm serve {MODEL} -cc '{{'", "is not JSON"),
        (f"vllm serve {MODEL} other", "unexpected word 'other'"),
        (
            f"vllm serve {MODEL} --enable-prefix-caching=True",
            "--enable-prefix-caching or --no-enable-prefix-caching takes no value, not 'True'",
        ),
        (f"vllm serve {MODEL} --max-model-len many", "--max-model-len: 'many' is not a number"),
        ("vllm bench serve --model x", "is not a command line of vllm serve"),
        ("vllm serve 'a", "a quotation mark is not closed"),
        ("", "is not a command line of vllm serve"),
        (f"vllm serve {MODEL} --config", "--config: expected one argument"),
        (f"vllm serve {MODEL} --nnodes 3 -tp 4", "do not divide into so many nodes"),
        ("vllm serve -tp 2", "--model missing"),
        ("vllm serve meta-llama/Llama-3.1-8C", "unknown model 'meta-llama/Llama-3.1-8C'"),
    ],
)
def test_bad_lines_get_one_clear_message(line: str, says: str) -> None:
    assert says in refusal(line)


def test_a_config_file_of_vllm_stands_for_its_flags(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(
        f"model: {MODEL}\ntensor_parallel_size: 4\nmax-num-seqs: 64\nenable-prefix-caching: false\n"
        "compilation-config:\n  mode: 3\napi-key: [a, b]\ntrust-remote-code: true\n"
    )
    config = config_of(f"vllm serve --config {file} -tp 2")
    assert config.model == MODEL
    assert (config.cluster.tensor_parallel_size, config.engine.max_num_seqs) == (2, 64)
    assert config.engine.enable_prefix_caching is False
    file.write_text(f"model: {MODEL}\nmax-num-sequences: 4\n")
    assert "unknown flag of vLLM '--max-num-sequences'" in refusal(f"vllm serve --config {file}")


@pytest.mark.parametrize(
    ("xpu", "tokens", "requests"),
    [
        ("h100-sxm", 8192, 1024),
        ("a100-80-sxm", 2048, 256),
        ("l40s", 2048, 256),
        ("b200-sxm", 16384, 1024),
    ],
)
def test_open_settings_are_vllms_defaults_on_that_accelerator(
    xpu: str, tokens: int, requests: int
) -> None:
    engine = config_from_vllm(f"vllm serve {MODEL}", xpu=xpu)[0].engine
    assert (engine.max_num_batched_tokens, engine.max_num_seqs) == (tokens, requests)
    assert engine.gpu_memory_utilization == 0.92


def test_defaults_follow_other_flags() -> None:
    doubled = config_of(f"vllm serve {MODEL} --performance-mode throughput").engine
    assert (doubled.max_num_batched_tokens, doubled.max_num_seqs) == (16384, 2048)
    whole = config_of(f"vllm serve {MODEL} --no-enable-chunked-prefill").engine
    assert whole.max_num_batched_tokens == 131072
    few = config_of(f"vllm serve {MODEL} --max-num-batched-tokens 512").engine
    assert few.max_num_seqs == 512
    two = config_of(f"vllm serve {MODEL} -dp 2").cluster
    assert two.router == "least_outstanding"
    assert config_of(f"vllm serve {MODEL} -dp 2 -dph").cluster.router == "round_robin"


def test_pools_get_the_defaults_of_their_own_accelerators() -> None:
    pools = [
        {"role": "prefill", "xpu": "b200-sxm", "engine": {"max_num_seqs": 8}},
        {"role": "decode", "xpu": "l40s"},
    ]
    config = config_of(
        f"vllm serve {MODEL} --block-size 32",
        **{"cluster.pools": pools, "transfer.bandwidth_gb_s": 50.0},
    )
    engines = [config.engine_of(pool) for pool in config.cluster.pools]
    assert [engine.max_num_batched_tokens for engine in engines] == [16384, 2048]
    assert [engine.max_num_seqs for engine in engines] == [8, 256]
    assert {engine.block_size for engine in engines} == {32}


def test_quantisation_that_the_checkpoint_has_is_its_own() -> None:
    config = config_of("vllm serve deepseek-v3 -tp 8 -q fp8 -ep")
    assert config.engine.quantization is None
    message = refusal("vllm serve deepseek-v3 -tp 8 -q awq_marlin")
    assert "--quantization awq_marlin is refused: the weights of deepseek-v3 are fp8" in message


def test_experts_sliced_over_engines_are_refused() -> None:
    message = refusal("vllm serve mixtral-8x7b -dp 2")
    assert "without --enable-expert-parallel vLLM slices the experts" in message
    assert config_of("vllm serve mixtral-8x7b -dp 2 -ep").cluster.n_engines == 2


def test_flags_of_ours_override_the_line(tmp_path: Path) -> None:
    result = tmp_path / "r.json"
    line = f"vllm serve {MODEL} --max-num-seqs 64 --block-size 32 --api-key SECRET --port 1"
    words = ["--from-vllm", line, "--xpu", "h100-sxm", "--max-num-seqs", "8", *SMALL]
    assert main([*words, "--quiet", "--output", str(result)]) == 0
    text = result.read_text()
    data = json.loads(text)
    assert data["config"]["engine"]["max_num_seqs"] == 8
    assert data["config"]["engine"]["block_size"] == 32
    said = data["provenance"]["from_vllm"]
    assert set(said["ignored"]) == {"--port", "--api-key"}
    assert said["defaults"] == {
        "engine.gpu_memory_utilization": 0.92,
        "engine.max_num_batched_tokens": 8192,
    }
    assert said["taken"] == {"model": MODEL, "engine.block_size": 32}
    assert "SECRET" not in text
    # The configuration of a result is complete: it needs no line to run again.
    assert SimulatorConfig.from_dict(data["config"]).engine.max_num_batched_tokens == 8192


def test_the_line_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"engine": {"max_num_seqs": 16, "max_num_batched_tokens": 4096}}))
    result = tmp_path / "r.json"
    line = f"vllm serve {MODEL} --max-num-seqs 64"
    words = ["--config", str(file), "--from-vllm", line, "--xpu", "h100-sxm", *SMALL, "--quiet"]
    assert main([*words, "--output", str(result)]) == 0
    engine = json.loads(result.read_text())["config"]["engine"]
    assert (engine["max_num_seqs"], engine["max_num_batched_tokens"]) == (64, 4096)


def test_the_summary_lists_what_was_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"vllm serve {MODEL} --port 80 --host h"
    assert main(["--from-vllm", line, "--xpu", "h100-sxm", *SMALL]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "ignored --host, --port: without effect on times" in out
    assert "vLLM 0.32.0 its defaults: gpu_memory_utilization 0.92, max_num_b" in out


@pytest.mark.parametrize("line", [f"vllm serve {MODEL}", f"vllm serve {MODEL} -q fp8"])
def test_the_accelerator_must_be_named(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from-vllm", line]) == 2
    assert capsys.readouterr().err.startswith(
        "error: --xpu missing: a command line of vLLM does not say which accelerator it runs on"
    )


def test_a_value_that_does_not_fit_is_named_by_vllms_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--from-vllm", f"vllm serve {MODEL} --max-num-seqs 0", "--xpu", "h100-sxm"]) == 2
    assert "--from-vllm's --max-num-seqs=0" in capsys.readouterr().err
