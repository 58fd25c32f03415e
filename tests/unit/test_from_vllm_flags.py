"""The tables of vLLM's flags: sound in themselves, and equal to vLLM's own parser."""

from __future__ import annotations

import argparse
import importlib
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator.catalog.xpu_spec import XpuSpec
from llm_inference_simulator.catalog.xpus import list_xpus
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import SimulatorError
from llm_inference_simulator.vllm_words import config_from_vllm
from llm_inference_simulator.vllm_words.arguments import parse_arguments
from llm_inference_simulator.vllm_words.bench_flags import bench_flags
from llm_inference_simulator.vllm_words.defaults import engine_defaults
from llm_inference_simulator.vllm_words.flags import VllmFlag, read_table
from llm_inference_simulator.vllm_words.ignored_serve_flags import IGNORED
from llm_inference_simulator.vllm_words.serve_flags import VLLM_VERSION, serve_flags

PROGRAMS = {"serve": serve_flags(), "bench": bench_flags()}
RETIRED = {
    name
    for subject, table in IGNORED.items()
    if subject.startswith("retired")
    for flag in read_table(table)
    for name in flag.names
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_names_are_unique_and_every_flag_has_one_meaning(program: str) -> None:
    flags = PROGRAMS[program]
    names = [name for flag in flags for name in flag.names]
    assert len(set(names)) == len(names)
    for flag in flags:
        assert flag.name.startswith("--")
        assert not (flag.place and flag.refusal), flag
        assert flag.refusal or not flag.harmless, flag


@pytest.mark.parametrize("program", PROGRAMS)
def test_places_are_places_of_the_configuration(program: str) -> None:
    for flag in PROGRAMS[program]:
        section, _, name = flag.place.rpartition(".")
        if section == "vllm" or not flag.place:
            continue
        fields: Any = SimulatorConfig.model_fields
        if section:
            fields = fields[section].annotation.model_fields
        assert name in fields, flag.place


def test_a_line_that_is_no_flag_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="not the notation of a flag"):
        list(read_table("--a V -> "))


def arity_of_ours(flag: VllmFlag) -> str:
    if not flag.takes:
        return "0"
    if flag.takes.startswith("["):
        return "*" if "..." in flag.takes else "?"
    return "+" if flag.takes.endswith("...") else "1"


def arity_of_theirs(action: argparse.Action) -> str:
    return "1" if action.nargs is None else str(action.nargs)


VALUES = ("4", "-1", "0.5", "{}", '{"a": {}}', "[1]", "null", "", "inf", "nan", "auto", "1K", "--")


@st.composite
def lines(draw: st.DrawFn, program: str) -> str:
    """Flags of vLLM with values that mostly make no sense."""
    words = []
    for flag in draw(st.lists(st.sampled_from(PROGRAMS[program]), max_size=4)):
        name, value = draw(st.sampled_from(flag.names)), draw(st.sampled_from(VALUES))
        forms = [[name], [name, value], [f"{name}={value}"], [f"{name}.key={value}"]]
        words += draw(st.sampled_from(forms))
    return shlex.join(words)


@given(st.data(), st.sampled_from(sorted(PROGRAMS)))
def test_whatever_a_line_says_the_answer_is_a_configuration_or_a_message(
    data: st.DataObject, program: str
) -> None:
    line = data.draw(lines(program))
    serve = f"vllm serve llama-3.1-8b {line}" if program == "serve" else None
    bench = f"vllm bench serve --model llama-3.1-8b {line}" if program == "bench" else None
    try:
        config, said = config_from_vllm(serve, bench, xpu="h100-sxm")
    except SimulatorError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine, a crash is not
    else:
        assert SimulatorConfig.from_dict(config.to_dict()) == config
        assert not any(place.startswith("vllm.") for place in said.places)


@pytest.fixture(scope="module")
def vllm() -> Any:
    """The package, on a platform that it names if this machine has none."""
    package: Any = pytest.importorskip("vllm")
    if not package.__version__.startswith(VLLM_VERSION):
        pytest.skip(f"vLLM {package.__version__}: the tables are those of {VLLM_VERSION}")
    platforms: Any = importlib.import_module("vllm.platforms")
    if platforms.current_platform.device_type == "":
        platforms._current_platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform()
        platforms.current_platform = platforms._current_platform
    return package


def parser_of(program: str) -> Any:
    parser = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
    if program == "serve":
        importlib.import_module("vllm.entrypoints.launchers.cli_args").make_arg_parser(parser)
    else:
        importlib.import_module("vllm.benchmarks.serve").add_cli_args(parser)
    return parser


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_tables_are_vllms_own_parser(program: str) -> None:
    theirs = {
        name: arity_of_theirs(action)
        for action in parser_of(program)._actions
        for name in action.option_strings
        if name not in ("-h", "--help")
    }
    ours = {}
    for flag in PROGRAMS[program]:
        for name in flag.names:
            ours[name] = arity_of_ours(flag)
        if flag.negatable:
            ours[f"--no-{flag.name.removeprefix('--')}"] = "0"
    assert {name: ours[name] for name in ours if name not in RETIRED} == theirs


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    "line",
    [
        "-tp 4 --max-num-batched-tokens 16K --max-num-seqs 64 --no-enable-prefix-caching",
        "-tp=4 --max_num_batched_tokens=25.6k --tensor-parallel-size 2 --watermark 0.1",
        "--tensor-parallel 2 --data-parallel-size 2 -ep -pp 2 --block-size 32",
        "--gpu-memory-utilization 0.8 --device-memory-utilization 0.7 --scheduling-policy priority",
        "--async-scheduling --no-async-scheduling --num-gpu-blocks-override 1000",
        "-O3 --long-prefill-token-threshold 512 --no-scheduler-reserve-full-isl",
    ],
)
def test_lines_are_read_as_vllm_reads_them(line: str) -> None:
    theirs = vars(parser_of("serve").parse_args(line.split()))
    ours, loose = parse_arguments(line.split(), serve_flags(), "line")
    assert not loose
    for name, value in ours.items():
        if name != "--optimization-level":
            assert value == theirs[name.removeprefix("--").replace("-", "_")], name


class Device:
    """As much of a platform as vLLM's defaults ask for."""

    def __init__(self, xpu: XpuSpec) -> None:
        self.xpu = xpu

    def get_device_total_memory(self) -> int:
        return self.xpu.usable_memory_bytes

    def get_device_name(self) -> str:
        return self.xpu.name.removeprefix("tpu-").upper()

    def is_tpu(self) -> bool:
        return self.xpu.name.startswith("tpu-")

    def is_cpu(self) -> bool:
        return self.xpu.name == "cpu"


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("xpu", list_xpus(), ids=lambda xpu: xpu.name)
def test_batch_sizes_are_those_that_vllm_chooses(
    xpu: XpuSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    arg_utils = importlib.import_module("vllm.engine.arg_utils")
    server = importlib.import_module("vllm.usage.usage_lib").UsageContext.OPENAI_API_SERVER
    monkeypatch.setattr(arg_utils, "current_platform", Device(xpu))
    tokens, requests = arg_utils.EngineArgs.get_batch_defaults(2)
    ours = engine_defaults(xpu, ranks=2)
    assert ours["max_num_batched_tokens"] == tokens[server]
    assert ours["max_num_seqs"] == min(requests[server], tokens[server])
    utilization = importlib.import_module("vllm.config.cache").CacheConfig.gpu_memory_utilization
    assert ours["gpu_memory_utilization"] == utilization
