"""Translates a command line of ``vllm bench serve``."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llm_inference_simulator.cli.arguments import percentiles
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.vllm_words.arguments import parse_arguments
from llm_inference_simulator.vllm_words.bench_flags import bench_flags
from llm_inference_simulator.vllm_words.command_line import read_bench_command
from llm_inference_simulator.vllm_words.words import REMEDY, Words, sort_flags
from llm_inference_simulator.workload.columns import MAX_REQUESTS

LABEL = "--from-vllm-bench"

DEFAULT_NUM_PROMPTS = 1000
RAMP_STAGES = 50
_TEXT_BACKENDS = ("vllm", "openai", "openai-chat", "openai-responses")
_PLAIN_BODY = {"ignore_eos", "temperature", "top_p", "top_k", "min_p", "seed", "stream"}
_NO_LENGTHS = {
    "random-mm": "images and video are not modelled",
    "random-rerank": "only models that generate text are simulated",
    "hf": "the prompts of a Hugging Face data set need its files and a tokeniser",
    "custom": "the prompts need a tokeniser",
    "custom_audio": "sound is not modelled",
    "custom_image": "images are not modelled",
    "spec_bench": "the prompts need a tokeniser",
    "speed_bench": "the prompts need a tokeniser",
}
"""Data sets that do not say how long their requests are."""
_LENGTHS_REMEDY = (
    "run the benchmark once with --save-result --save-detailed and give --trace RESULT.json, or "
    'write rows of {"timestamp": 0, "input_length": …, "output_length": …} and give --lengths-from'
)


def read_bench_line(line: str) -> Words:
    """Translate a line; raises :class:`ConfigError` naming the flag that is wrong or refused."""
    command = read_bench_command(line, LABEL)
    flags = bench_flags()
    given, loose = parse_arguments(command.arguments, flags, LABEL)
    if loose:
        raise ConfigError(f"{LABEL}: unexpected word {loose[0]!r}: every value needs its flag")
    words = Words(LABEL, line)
    sort_flags(words, given, flags)
    words.ignored += command.environment
    _translate_request(words)
    _translate_measurement(words)
    name = words.take("dataset_name") or "random"
    translate = _DATASETS.get(name)
    if translate is None:
        raise _no_such_dataset(words, name)
    path, shared = words.take("dataset_path"), _take_shared(words)
    translate(words, path, shared)
    _translate_ramp(words)
    return words


def _no_such_dataset(words: Words, name: str) -> ConfigError:
    if name in _NO_LENGTHS:
        return ConfigError(
            f"{words.label}: --dataset-name {name} is refused: {_NO_LENGTHS[name]}; "
            f"{_LENGTHS_REMEDY}"
        )
    known = (*_DATASETS, *_NO_LENGTHS)
    return ConfigError(f"{words.label}: {unknown_name('--dataset-name', name, known)}")


def _take_shared(words: Words) -> dict[str, Any]:
    """What several data sets use, or only one of them: it is idle beside the others."""
    names = ("input_len", "output_len", "random_range_ratio", "prefix_len", "suffix_len")
    more = ("num_prefixes", "prefix_output_len", "hash_size", "sec_multiplier", "self_timed")
    words.take("custom_output_len")
    return {name: words.take(name) for name in (*names, *more)}


def _random(words: Words, path: str | None, shared: dict[str, Any]) -> None:
    if path is not None:
        raise ConfigError(
            f"{words.label}: --dataset-path {path} has no meaning for random requests: name what "
            "it is with --dataset-name, or leave it out"
        )
    # The general names win, as in vLLM.
    for name in ("input_len", "output_len"):
        if shared[name] is not None:
            words.put(f"workload.random_{name}", shared[name], f"--{name.replace('_', '-')}")
    if shared["random_range_ratio"] is not None:
        ratio = _range_ratio(words, shared["random_range_ratio"])
        words.put("workload.random_range_ratio", ratio, "--random-range-ratio")


def _range_ratio(words: Words, text: str) -> float:
    try:
        ratio = json.loads(text)
        ratios = [ratio["input"], ratio["output"]] if isinstance(ratio, dict) else [ratio]
        numbers = {float(number) for number in ratios}
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            f"{words.label}: --random-range-ratio {text!r} is neither a number nor "
            '\'{"input": R, "output": R}\''
        ) from None
    if len(numbers) > 1:
        raise words.refuse("--random-range-ratio", text, "prompts and outputs share one ratio")
    return numbers.pop()


def _prefix_repetition(words: Words, path: str | None, shared: dict[str, Any]) -> None:
    _random(words, path, dict.fromkeys(shared))
    flag = "--dataset-name"
    count = words.places.get("workload.num_prompts", DEFAULT_NUM_PROMPTS)
    prefixes = shared["num_prefixes"] or 10
    if count < prefixes:
        raise ConfigError(
            f"{words.label}: --num-prompts {count} is below --prefix-repetition-num-prefixes "
            f"{prefixes}: each prefix needs a prompt"
        )
    output = shared["output_len"] or shared["prefix_output_len"] or 128
    words.put("workload.num_prompts", count // prefixes * prefixes, "--num-prompts")
    words.put("workload.random_prefix_len", shared["prefix_len"] or 256, flag)
    words.put("workload.random_num_prefixes", prefixes, flag)
    words.put("workload.random_input_len", shared["suffix_len"] or 256, flag)
    words.put("workload.random_output_len", output, flag)


def _recorded_lengths(trace_format: str) -> Callable[[Words, str | None, dict[str, Any]], None]:
    def translate(words: Words, path: str | None, shared: dict[str, Any]) -> None:
        _drop_random_lengths(words)
        if path is not None and trace_format == "burstgpt":
            _require_gpt_4(words, Path(path))
        if shared["output_len"] is not None:
            why = f"output lengths come from the {trace_format} file itself"
            raise words.refuse("--output-len", shared["output_len"], why)
        words.put("workload.lengths_from", _required(words, path, trace_format), "--dataset-path")
        words.put("workload.trace_format", trace_format, "--dataset-name")

    return translate


def _require_gpt_4(words: Words, path: Path) -> None:
    """vLLM draws from the rows of GPT-4 alone, our reader from all."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            models = {row.get("Model") for row in csv.DictReader(file)}
    except (OSError, ValueError, csv.Error):
        return  # the reader of the trace words what is wrong with the file
    if models - {"GPT-4", None}:
        raise ConfigError(
            f"{words.label}: --dataset-path {path} has rows of several models, of "
            "which vLLM uses those of GPT-4: write them to a file of their own, as with grep -E "
            f"'^Timestamp|,GPT-4,' {path}"
        )


def _timed_trace(words: Words, path: str | None, shared: dict[str, Any]) -> None:
    _drop_random_lengths(words)
    file = _required(words, path, "timed_trace")
    words.put("workload.trace_format", "mooncake", "--dataset-name")
    words.put("workload.trace_block_size", shared["hash_size"] or 16, "--dataset-name")
    if shared["self_timed"] is False:
        words.put("workload.lengths_from", file, "--dataset-path")
        return
    words.put("workload.trace", file, "--dataset-path")
    for place in ("workload.request_rate", "workload.burstiness"):
        if words.places.pop(place, None) is not None:
            words.ignored.append(words.spellings.pop(place).rpartition(" ")[2])
    # vLLM multiplies timestamps to seconds, we read them as milliseconds.
    multiplier = 1.0 if shared["sec_multiplier"] is None else shared["sec_multiplier"]
    if not 0 < multiplier < math.inf:
        raise ConfigError(
            f"{words.label}: --timed-trace-sec-multiplier {multiplier} must be positive"
        )
    speedup = 1e-3 / multiplier
    words.put("workload.trace_speedup", speedup, "--timed-trace-sec-multiplier")
    words.places.setdefault("workload.num_prompts", DEFAULT_NUM_PROMPTS)


def _required(words: Words, path: str | None, name: str) -> str:
    if path is None:
        raise ConfigError(f"{words.label}: --dataset-name {name} needs --dataset-path FILE")
    return path


def _drop_random_lengths(words: Words) -> None:
    """They describe another data set than the one that the line names."""
    for place in [place for place in words.places if place.startswith("workload.random_")]:
        del words.places[place]
        words.ignored.append(words.spellings.pop(place).rpartition(" ")[2])


_DATASETS: dict[str, Callable[[Words, str | None, dict[str, Any]], None]] = {
    "random": _random,
    "prefix_repetition": _prefix_repetition,
    "sharegpt": _recorded_lengths("sharegpt"),
    "burstgpt": _recorded_lengths("burstgpt"),
    "timed_trace": _timed_trace,
}


def _translate_request(words: Words) -> None:
    backend = words.take("backend")
    if backend is not None and backend not in _TEXT_BACKENDS:
        raise words.refuse("--backend", backend, f"only {', '.join(_TEXT_BACKENDS)} send prompts")
    penalty = words.take("repetition_penalty")
    if penalty is not None:
        if penalty != 1:
            why = "the model's own penalty is simulated, or none (1)"
            raise words.refuse("--repetition-penalty", penalty, why)
        words.put("engine.generation_config", "vllm", "--repetition-penalty")
    body = words.take("extra_body")
    if body is None:
        return
    unknown = sorted(set(body) - _PLAIN_BODY) if isinstance(body, dict) else [str(body)]
    if unknown:
        why = "what it changes in requests is not modelled"
        raise words.refuse("--extra-body", unknown[0], why)
    words.ignored.append("--extra-body")


def _translate_measurement(words: Words) -> None:
    place = "measurement.metric_percentiles"
    if place not in words.places:
        return
    try:
        words.places[place] = percentiles(words.places[place])
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"{words.label}: --metric-percentiles: {error}") from None


def _translate_ramp(words: Words) -> None:
    """A ramp by the number of the request becomes stages of equally many requests."""
    strategy = words.take("ramp_up_strategy")
    first, last = words.take("ramp_up_start"), words.take("ramp_up_end")
    if strategy is None:
        return
    label = words.label
    if "workload.request_rate" in words.places:
        raise ConfigError(f"{label}: --request-rate and --ramp-up-strategy: leave one out")
    if "workload.trace" in words.places:
        raise ConfigError(f"{label}: --ramp-up-strategy and times of a trace: leave one out")
    if strategy not in ("linear", "exponential"):
        known = ("linear", "exponential")
        raise ConfigError(f"{label}: {unknown_name('--ramp-up-strategy', strategy, known)}")
    if first is None or last is None or not 0 < first <= last:
        raise ConfigError(
            f"{label}: --ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps, whole "
            f"numbers above 0 that do not fall: {first} and {last} were given; {REMEDY}"
        )
    count = words.places.setdefault("workload.num_prompts", DEFAULT_NUM_PROMPTS)
    if not 1 <= count <= MAX_REQUESTS:
        raise ConfigError(f"{label}: --num-prompts {count} must be from 1 to {MAX_REQUESTS:,}")
    stages = ramp_stages(strategy, first, last, count)
    words.put("workload.rate_stages", stages, "--ramp-up-strategy")


def ramp_stages(strategy: str, first: float, last: float, count: int) -> list[list[float]]:
    """(requests per second, seconds) of at most 50 stages.

    vLLM's i-th of n gaps has the mean 1 / rate(i / (n - 1)); a stage lasts as long as its requests'
    gaps. The last one goes on for so long that all n requests have come, whatever the seed.
    """
    number = min(RAMP_STAGES, count)
    edges = [count * index // number for index in range(number + 1)]
    stages = []
    for start, end in itertools.pairwise(edges):
        share = np.arange(start, end) / max(count - 1, 1)
        if strategy == "linear":
            rates = first + (last - first) * share
        else:
            rates = first * (last / first) ** share
        seconds = float((1 / rates).sum())
        stages.append([(end - start) / seconds, seconds])
    stages[-1][1] += (10 * math.sqrt(count) + 10) / stages[-1][0]
    return stages
