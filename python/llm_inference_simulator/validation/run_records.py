"""Run records: a list of objects, each a server, an open-loop load in stages, and its latencies.

Prompts come from ``prefix_groups`` x ``prompts_per_group`` distinct ones of ``input_mean`` tokens,
of which the first ``sys`` are shared in a group; each is asked in turn, in an order that was
shuffled once, as inference-perf's shared-prefix data does.
Outputs have ``output`` tokens. The servers ran
with asynchronous scheduling, prefix caching and chunked prefill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from llm_inference_simulator.capacity import kv_layout
from llm_inference_simulator.catalog import canonical_model_name, load_model, load_xpu
from llm_inference_simulator.config import EngineConfig, SimulatorConfig, as_tuples
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.sections import Count, Fraction, PositiveReal, Section, WholeNumber
from llm_inference_simulator.validation.measured import Latencies, MeasuredRun, Stage
from llm_inference_simulator.workload_config import Stages

_STORED_IN_16_BITS = ("FP16", "BF16")
_LARGEST_CONTRADICTION = 0.05
"""Share of the output length: what rounding and a few odd answers make is below 2 %."""


class MeasuredLatencies(Section):
    """Milliseconds; what was not measured is left out."""

    e2e_mean: PositiveReal | None = None
    e2e_p90: PositiveReal | None = None
    e2e_p99: PositiveReal | None = None
    ttft_mean: PositiveReal | None = None
    ttft_p90: PositiveReal | None = None
    ttft_p99: PositiveReal | None = None
    itl_mean: PositiveReal | None = None
    """Mean over requests of (E2E - TTFT) / (output tokens - 1)."""


class RunRecord(Section):
    """One object of the list."""

    id: str
    model: str
    hardware: str
    tensor_parallel_size: Count = 1
    precision: Literal["FP16", "BF16", "FP8"]
    max_num_batched_tokens: Count
    max_num_seqs: Count
    max_model_len: Count
    block_size: Count
    gpu_memory_utilization: Fraction
    workload: str
    stages: Stages
    """(requests per second, seconds) of each."""
    sys: WholeNumber
    question: WholeNumber
    output: Count
    input_mean: Count
    """Tokens of a prompt: ``sys``, ``question`` and what the chat template adds."""
    prefix_groups: Count
    prompts_per_group: Count
    measured_ms: MeasuredLatencies
    num_gpu_blocks: Count | None = None
    """KV blocks that the server logged."""
    num_gpu_blocks_either: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    """Counts of which the server logged one."""


def recognises(value: Any) -> bool:
    """Tell whether ``value`` looks like a run record."""
    return isinstance(value, dict) and {"measured_ms", "stages"} <= value.keys()


def read(values: Sequence[Any], path: Path, settings: Mapping[str, Any]) -> list[MeasuredRun]:
    """Read every record; :class:`ConfigError` names file, run and field."""
    if "model" in settings:
        raise ConfigError(
            f"--model {settings['model']} would replace the model of every run in {path}: leave it "
            "out, the runs name their own"
        )
    runs = []
    for index, value in enumerate(values, start=1):
        source = f"measurements {path}, run {value.get('id', index)}"
        runs.append(_run(dict(value), source, path, settings))
    ids = [run.id for run in runs]
    for name in ids:
        if ids.count(name) > 1:
            raise ConfigError(f"measurements {path}: id={name!r} stands {ids.count(name)} times")
    return runs


def _run(
    value: dict[str, Any], source: str, path: Path, settings: Mapping[str, Any]
) -> MeasuredRun:
    by_stage = value.pop("measured_ms_by_stage", None)
    record = RunRecord.parse(as_tuples(value), source=source)
    if record.input_mean <= record.sys:
        raise ConfigError(
            f"{source}: input_mean={record.input_mean} leaves nothing behind the shared "
            f"sys={record.sys} tokens: it counts the whole prompt"
        )
    measured = _given(record.measured_ms, f"{source}: measured_ms")
    contradiction = _consistent(record, measured)
    blocks, notes = _logged_blocks(record)
    try:
        data = _configuration(record, blocks, settings.get("xpu"))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    _count_pool_blocks(data, record)
    for section, fields in settings.items():
        both = section in data and isinstance(fields, Mapping)
        data[section] = {**data[section], **fields} if both else fields
    return MeasuredRun(
        id=record.id,
        source=str(path),
        workload_name=record.workload,
        config=SimulatorConfig.from_dict(data, source=source),
        measured=measured,
        stages=_stages(record, by_stage, source),
        notes=(*notes, *contradiction),
    )


def _logged_blocks(record: RunRecord) -> tuple[int | None, tuple[str, ...]]:
    if record.num_gpu_blocks is not None:
        return record.num_gpu_blocks, ()
    if record.num_gpu_blocks_either is not None:
        fewest = min(record.num_gpu_blocks_either)
        return fewest, (f"num_gpu_blocks is one of several: the fewest, {fewest:,}, are taken",)
    return None, ("num_gpu_blocks was not logged: the computed number is taken",)


def _consistent(record: RunRecord, measured: dict[str, float]) -> tuple[str, ...]:
    """Let ITL follow from E2E and TTFT, as it is defined; note where the record says otherwise.

    Load generators count output tokens by tokenising the text again, which may find fewer than
    were generated; E2E and TTFT are times of a clock.
    """
    if not {"e2e_mean", "ttft_mean", "itl_mean"} <= measured.keys() or record.output < 2:
        return ()
    recorded = measured["itl_mean"]
    measured["itl_mean"] = (measured["e2e_mean"] - measured["ttft_mean"]) / (record.output - 1)
    if abs(recorded / measured["itl_mean"] - 1) <= _LARGEST_CONTRADICTION:
        return ()
    counted = (measured["e2e_mean"] - measured["ttft_mean"]) / recorded + 1
    return (
        f"the recorded itl_mean={recorded:g} fits {counted:,.0f} output tokens, not output="
        f"{record.output}: ITL is taken from E2E and TTFT instead",
    )


def _configuration(record: RunRecord, blocks: int | None, xpu: str | None) -> dict[str, Any]:
    """Return the configuration as plain data; logged blocks make the comparison one of times."""
    return {
        "model": canonical_model_name(record.model),
        "xpu": load_xpu(record.hardware).name if xpu is None else xpu,
        "cluster": {"tensor_parallel_size": record.tensor_parallel_size},
        "engine": {
            "quantization": _quantization(record),
            "max_num_seqs": record.max_num_seqs,
            "max_num_batched_tokens": record.max_num_batched_tokens,
            "max_model_len": record.max_model_len,
            "block_size": record.block_size,
            "gpu_memory_utilization": record.gpu_memory_utilization,
            "num_gpu_blocks_override": blocks,
            "enable_prefix_caching": True,
            "enable_chunked_prefill": True,
            "async_scheduling": True,
        },
        "workload": {
            "rate_stages": record.stages,
            "random_prefix_len": record.sys,
            "random_input_len": record.input_mean - record.sys,
            "random_output_len": record.output,
            "random_num_prefixes": record.prefix_groups,
            "random_prompts_per_prefix": record.prompts_per_group,
            "random_prompt_order": "cyclic",
        },
    }


def _count_pool_blocks(data: dict[str, Any], record: RunRecord) -> None:
    """Turn logged blocks, one for ``block_size`` tokens, into the pool's that the option counts.

    vLLM logs tokens over the block size; where layers form several groups, a token takes a block
    in each.
    """
    engine = data["engine"]
    if engine["num_gpu_blocks_override"] is None:
        return
    model = load_model(data["model"])
    config = EngineConfig.model_validate(engine)
    layout = kv_layout(model, config, record.tensor_parallel_size)
    each = layout.blocks_per_token_block(record.max_model_len)
    engine["num_gpu_blocks_override"] = round(engine["num_gpu_blocks_override"] * each)


def _quantization(record: RunRecord) -> str | None:
    """Format to ask for: None where the model is stored in the record's precision already."""
    stored = load_model(record.model).quantization
    if record.precision in _STORED_IN_16_BITS:
        if stored is not None:
            raise ConfigError(
                f"precision={record.precision}, but {record.model} is stored in {stored.format}: "
                "name the model that ran"
            )
        return None
    return None if stored is not None else "fp8"


def _stages(record: RunRecord, by_stage: Any, source: str) -> tuple[Stage, ...]:
    measured: list[Latencies | None] = [None] * len(record.stages)
    if by_stage is not None:
        if not isinstance(by_stage, list) or len(by_stage) != len(record.stages):
            raise ConfigError(
                f"{source}: measured_ms_by_stage must be a list with one entry for each of the "
                f"{len(record.stages)} stages"
            )
        for index, value in enumerate(by_stage):
            where = f"{source}: measured_ms_by_stage[{index}]"
            latencies = _given(MeasuredLatencies.parse(value, source=where), where)
            _consistent(record, latencies)
            measured[index] = latencies
    return tuple(
        Stage(request_rate=rate, seconds=seconds, measured=latencies)
        for (rate, seconds), latencies in zip(record.stages, measured, strict=True)
    )


def _given(latencies: MeasuredLatencies, where: str) -> dict[str, float]:
    found = latencies.model_dump(exclude_none=True)
    if not found:
        raise ConfigError(f"{where} holds no latency: give one, such as e2e_mean")
    return found
