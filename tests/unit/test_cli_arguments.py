"""Parsing of flags: vLLM's forms, conflicts, unknown names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.cli.arguments import normalise, percentiles, token_count
from llm_inference_simulator.cli.run_config import build_config
from llm_inference_simulator.cli.run_flags import build_run_parser
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError

REQUIRED = ["--model", "llama-7b", "--xpu", "gb10"]


def parse(*words: str) -> dict[str, Any]:
    return vars(build_run_parser("program").parse_all(list(words)))


def configure(*words: str) -> SimulatorConfig:
    flags = parse(*REQUIRED, *words)
    return build_config(flags)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("4096", 4096),
        ("1k", 1000),
        ("1K", 1024),
        ("32K", 32_768),
        ("25.6k", 25_600),
        ("1.5m", 1_500_000),
        ("2M", 2_097_152),
        ("-5", -5),
    ],
)
def test_token_counts_take_vllms_suffixes(text: str, tokens: int) -> None:
    assert token_count(text) == tokens


@pytest.mark.parametrize("text", ["25.6K", "1.2345k", "5.5", "K", "", "4 k", "1e3", "nan", "inf"])
def test_bad_token_counts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-model-len"):
        parse(f"--max-model-len={text}")


def test_underscores_in_flags_are_dashes_but_values_stay() -> None:
    assert normalise(["--max_num_seqs=4", "--router", "round_robin"]) == [
        "--max-num-seqs=4",
        "--router",
        "round_robin",
    ]


def test_negative_values_are_bound_to_their_flag() -> None:
    assert normalise(["--seed", "-3", "--arrival-rate", "-inf", "-tp", "2"]) == [
        "--seed=-3",
        "--arrival-rate=-inf",
        "-tp",
        "2",
    ]


@pytest.mark.parametrize(
    ("words", "section", "field", "value"),
    [
        (["-tp", "4"], "cluster", "tensor_parallel_size", 4),
        (["--tp=4"], "cluster", "tensor_parallel_size", 4),
        (["--tensor_parallel_size", "4"], "cluster", "tensor_parallel_size", 4),
        (["--dp", "2"], "cluster", "data_parallel_size", 2),
        (["-q", "fp8"], "engine", "quantization", "fp8"),
        (["--max-model-len", "32K"], "engine", "max_model_len", 32_768),
        (["--no-enable-chunked-prefill"], "engine", "enable_chunked_prefill", False),
        (["--batching-strategy", "greedy"], "engine", "batching_strategy", "static"),
        (["--arrival-rate", "5"], "workload", "request_rate", 5.0),
        (["--request-rate", "inf"], "workload", "request_rate", float("inf")),
        (["--warm-up", "2.5"], "measurement", "warm_up", 2.5),
        (["--metric-percentiles", "95,99.9"], "measurement", "metric_percentiles", (95.0, 99.9)),
        (["--goodput", "ttft:500", "tpot:50"], "measurement", "goodput", {"ttft": 500, "tpot": 50}),
    ],
)
def test_flags_reach_their_place(words: list[str], section: str, field: str, value: Any) -> None:
    assert getattr(getattr(configure(*words), section), field) == value


def test_every_setting_of_the_configuration_has_a_flag() -> None:
    places = {action.dest for action in build_run_parser("program")._actions}
    for section, info in SimulatorConfig.model_fields.items():
        fields = getattr(info.annotation, "model_fields", None)
        expected = {f"{section}.{field}" for field in fields} if fields else {section}
        # Lists and what has parts of its own have their place in a file.
        in_files = {"cluster.pools", "fleet.events", "fleet.autoscaling", "workload.classes"}
        assert expected - in_files <= places


def test_defaults_in_the_help_are_those_of_the_configuration() -> None:
    config = SimulatorConfig(model="m", xpu="x")
    checked = 0
    for action in build_run_parser("program")._actions:
        section, _, field = action.dest.rpartition(".")
        told = re.search(r"\(default: ([\w.,]+)\)", action.help or "")
        owner = getattr(config, section, None) if section else config
        if told is None or not hasattr(owner, field):
            continue
        default = getattr(owner, field)
        told_text = told[1]
        if told_text == "none":
            assert default is None or default == {}
        elif isinstance(default, bool):
            assert told_text == ("on" if default else "off")
        elif isinstance(default, tuple):
            assert tuple(percentiles(told_text)) == default
        elif isinstance(default, int | float):
            assert float(told_text) == default
        elif default is not None:
            assert told_text == default
        checked += 1
    assert checked > 15


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("--max-num-sequences", "--max-num-seqs"),
        ("--qps", None),
        ("--arival-rate", "--arrival-rate"),
        ("--max-num", "--max-num-seqs"),  # no abbreviations
    ],
)
def test_unknown_flags_get_the_nearest_name(flag: str, near: str | None) -> None:
    with pytest.raises(ConfigError, match=f"unknown flag '{flag}'") as caught:
        parse(flag, "5")
    if near:
        assert f"did you mean '{near}'" in str(caught.value)


def test_a_word_without_a_flag_is_refused() -> None:
    with pytest.raises(ConfigError, match="unexpected argument 'llama-7b'"):
        parse("llama-7b")


def test_two_spellings_with_two_values_conflict() -> None:
    with pytest.raises(ConfigError, match=r"--arrival-rate 5.0 and --request-rate 10.0 are"):
        parse("--arrival-rate", "5", "--request-rate", "10")
    assert parse("--arrival-rate", "5", "--request-rate", "5")["workload.request_rate"] == 5.0


def test_the_same_flag_twice_is_an_override() -> None:
    assert parse("--seed", "1", "--seed", "2")["seed"] == 2


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "model: llama-7b\nxpu: gb10\nseed: 7\nengine: {max_num_seqs: 4, block_size: 32}\n"
    )
    flags = parse("--config", str(file), "--max-num-seqs", "9", "--xpu", "h100")
    config = build_config(flags)
    assert (config.xpu, config.seed) == ("h100", 7)
    assert (config.engine.max_num_seqs, config.engine.block_size) == (9, 32)


def test_bad_values_are_named_by_the_flag_that_gave_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--request-rate=-5.0: "):
        configure("--request-rate", "-5")
    file = tmp_path / "config.yaml"
    file.write_text("model: llama-7b\nxpu: gb10\nengine: {max_num_seqs: 0}\n")
    flags = parse("--config", str(file), "--block-size", "16")
    with pytest.raises(ConfigError, match=r"config\.yaml: engine\.max_num_seqs=0"):
        build_config(flags)


@pytest.mark.parametrize("section", ["engine: null", "engine: [1]", "engine: fast"])
def test_a_section_of_the_wrong_type_is_an_error_even_under_flags(
    tmp_path: Path, section: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"model: llama-7b\nxpu: gb10\n{section}\n")
    flags = parse("--config", str(file), "--block-size", "16")
    with pytest.raises(ConfigError, match=r"config\.yaml: engine="):
        build_config(flags)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["ttft"], "NAME:MILLISECONDS"),
        (["ttft:fast"], "'fast' is not a number"),
        (["tftt:5"], "did you mean 'ttft'"),
        (["ttft:5", "ttft:6"], "names ttft twice"),
        (["ttft:-5"], "goodput"),
        (["ttft:nan"], "goodput"),
        (["ttft:inf"], "goodput"),
    ],
)
def test_bad_goodput_is_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure("--goodput", *pairs)
    assert message in str(caught.value)
