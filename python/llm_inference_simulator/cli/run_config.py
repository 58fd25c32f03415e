"""From parsed flags and a configuration file to a validated configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_inference_simulator.cli.arguments import SPELLINGS
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.files import read_mapping

if TYPE_CHECKING:
    from llm_inference_simulator.vllm_words.translation import Translation

ROLES = ("prefill", "decode")
"""Pools of --disaggregated, in the order of their engines."""
GOODPUT_METRICS = ("ttft", "tpot", "e2el")


def read_vllm_lines(flags: Mapping[str, Any]) -> Translation | None:
    """Translate the lines of --from-vllm and --from-vllm-bench; None where there are none."""
    serve, bench = flags.get("command.from_vllm"), flags.get("command.from_vllm_bench")
    if serve is None and bench is None:
        return None
    from llm_inference_simulator.vllm_words.translation import translate

    return translate(serve, bench)


def build_config(flags: Mapping[str, Any], lines: Translation | None = None) -> SimulatorConfig:
    """Merge flags (``section.field`` → value) over the file of ``--config`` and validate.

    ``lines`` of vLLM come between the two, vLLM's own defaults below both.
    Raises :class:`ConfigError`; what a flag caused is named by the flag.
    """
    config_file = flags.get("command.config_file")
    data: dict[str, Any] = {}
    if config_file is not None:
        data = read_mapping(Path(config_file), "--config")
    if lines is not None:
        flags = _over_lines(flags, lines)
    flags = _pools_from_flags(flags, data)
    needed = ("model",) if _pools_name_xpus(data) else ("model", "xpu")
    missing = [name for name in needed if name not in data and name not in flags]
    if missing == ["xpu"] and lines is not None:
        raise ConfigError(
            "--xpu missing: a command line of vLLM does not say which accelerator it runs on; name "
            "it, as in --xpu h100-sxm (the command 'xpus' lists them)"
        )
    if missing:
        raise ConfigError(
            f"{' and '.join(f'--{name}' for name in missing)} missing: name a model and an "
            "accelerator, as in --model llama-7b --xpu gb10 (the commands 'models' and 'xpus' "
            "list them)"
        )
    put_flags(data, flags)
    if lines is not None:
        lines.fill_in(data)
    try:
        return SimulatorConfig.from_dict(data, source=config_file or "")
    except ConfigError as error:
        raise ConfigError(name_flags(str(error), flags, config_file)) from None


def _over_lines(flags: Mapping[str, Any], lines: Translation) -> dict[str, Any]:
    """Flags of ours, and under them what the lines of vLLM say."""
    taken = lines.keep_beside(flags)
    spellings = {place: flag for place, flag in lines.spellings.items() if place in taken}
    return {**taken, **flags, SPELLINGS: {**spellings, **flags.get(SPELLINGS, {})}}


def put_flags(data: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Set in plain ``data`` what the flags give of the configuration."""
    for place, value in flags.items():
        section, _, field = place.rpartition(".")
        if section != "command":
            _put(data, section, field, _plain(place, value))


def _pools_from_flags(flags: Mapping[str, Any], data: dict[str, Any]) -> Mapping[str, Any]:
    """Turn --disaggregated and what describes its engines into pools of the configuration."""
    spellings = flags.get(SPELLINGS, {})
    given = [place for place in flags if place.partition(".")[0] in ROLES]
    if not flags.get("command.disaggregated"):
        if given:
            raise ConfigError(
                f"{spellings.get(given[0], given[0])} describes engines of a disaggregated "
                "cluster: give --disaggregated too"
            )
        return flags
    for field in (
        "n_nodes",
        "n_xpus_per_node",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
    ):
        flag = spellings.get(f"cluster.{field}")
        if flag:
            raise ConfigError(
                f"{flag} describes engines of one kind: with --disaggregated give --prefill-tp, "
                "--prefill-pp and --prefill-n-xpus, and the same for decode"
            )
    if isinstance(data.get("cluster"), Mapping) and data["cluster"].get("pools"):
        raise ConfigError(
            f"--disaggregated describes two pools, but {flags['command.config_file']} has "
            "cluster.pools: set roles there, or leave one out"
        )
    pools: list[dict[str, Any]] = [{"name": role, "role": role} for role in ROLES]
    for place in given:
        role, _, field = place.partition(".")
        pools[ROLES.index(role)][field] = flags[place]
    _put(data, "cluster", "pools", pools)
    return {place: value for place, value in flags.items() if place not in given}


def _pools_name_xpus(data: Mapping[str, Any]) -> bool:
    cluster = data.get("cluster")
    pools = cluster.get("pools") if isinstance(cluster, Mapping) else None
    if not isinstance(pools, list) or not pools:
        return False
    return all(isinstance(pool, Mapping) and "xpu" in pool for pool in pools)


def _put(data: dict[str, Any], section: str, field: str, value: Any) -> None:
    """Set one value; a section that the file gives as something else is left to the validator."""
    target = data.setdefault(section, {}) if section else data
    if isinstance(target, dict):
        target[field] = value


def _plain(place: str, value: Any) -> Any:
    return parse_goodput(value) if place == "measurement.goodput" else value


def parse_goodput(pairs: Sequence[str]) -> dict[str, float]:
    """Read ``ttft:500 tpot:50`` (milliseconds)."""
    objectives: dict[str, float] = {}
    for pair in pairs:
        name, colon, limit = pair.partition(":")
        if not colon:
            raise ConfigError(
                f"--goodput {pair!r} is not NAME:MILLISECONDS: give pairs as in ttft:500 tpot:50"
            )
        if name not in GOODPUT_METRICS:
            raise ConfigError(
                unknown_name(
                    "--goodput metric",
                    name,
                    GOODPUT_METRICS,
                    remedy=f"(known: {', '.join(GOODPUT_METRICS)})",
                )
            )
        if name in objectives:
            raise ConfigError(f"--goodput names {name} twice: leave one out")
        try:
            objectives[name] = float(limit)
        except ValueError:
            raise ConfigError(
                f"--goodput {pair!r}: {limit!r} is not a number of milliseconds"
            ) from None
    return objectives


def name_flags(message: str, flags: Mapping[str, Any], config_file: str | None) -> str:
    """Word a validator's message in the flags that were given, for it speaks of fields."""
    message = message.removeprefix(": ")
    if flags.get("command.disaggregated"):
        for index, role in enumerate(ROLES):
            own = f"cluster.pools.{index}: "
            if message.startswith(own):
                message = message.removeprefix(own).replace("n_xpus", f"--{role}-n-xpus")
                message = message.replace("tensor_parallel_size", f"--{role}-tp")
                message = message.replace("pipeline_parallel_size", f"--{role}-pp")
    for place, flag in flags.get(SPELLINGS, {}).items():
        # An objective of --goodput and a number of --metric-percentiles have places inside.
        field = re.compile(rf"(?<![\w.]){re.escape(place)}(?:\.\d+)*(?:\.(\w+))?=")
        if field.search(message):
            # The value came from the flag, not from the file that opens the message.
            message = message.removeprefix(f"{config_file}: ")
            return field.sub(rf"{flag} \1=", message).replace(f"{flag} =", f"{flag}=")
    return message
