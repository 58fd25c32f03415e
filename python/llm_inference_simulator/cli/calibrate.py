"""The subcommand ``calibrate``: measurements in, calibration file out.

A source of measurements is an entry of ``_SOURCES``: its flag, and the function that makes or
improves a calibration from the files given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_inference_simulator.cli.arguments import token_count, whole_number
from llm_inference_simulator.errors import CalibrationError, ConfigError

if TYPE_CHECKING:
    from llm_inference_simulator.calibration import CalibrationFile

DESCRIPTION = """\
Fit the calibrated roofline to measurements and write a calibration file.

examples
  llm-inference-simulator calibrate --from-steps steps.jsonl.gz \\
    --model llama-3.1-8b --xpu h100 --output calibration.json
  llm-inference-simulator calibrate --from-bench serve.json --calibration-data calibration.json \\
    --model llama-3.1-8b --xpu h100 --output calibration_server.json"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A calibration, and what its maker wants to say."""

    calibration: CalibrationFile
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Source = Callable[[argparse.Namespace, "CalibrationFile | None"], Outcome]
"""Makes a calibration from the files of its flag; given one, it improves that."""


def _from_steps(arguments: argparse.Namespace, before: CalibrationFile | None) -> Outcome:
    from llm_inference_simulator.calibrators import calibrate_from_steps

    if before is not None:
        raise ConfigError("--from-steps makes a calibration anew: leave out --calibration-data")
    made = calibrate_from_steps(
        _paths(arguments.from_steps),
        model=arguments.model,
        xpu=arguments.xpu,
        tensor_parallel_size=arguments.tensor_parallel_size or 1,
        engine=_engine(arguments),
        warm_up_steps=arguments.warm_up_steps,
        bootstrap_samples=arguments.bootstrap_samples,
        progress=_progress(arguments),
    )
    return Outcome(made.calibration, tuple(describe(made.calibration)), made.fit.warnings)


def _from_bench(arguments: argparse.Namespace, before: CalibrationFile | None) -> Outcome:
    from llm_inference_simulator.calibration.bench_results import AskedLengths
    from llm_inference_simulator.calibrators import calibrate_from_bench
    from llm_inference_simulator.calibrators.from_bench import measured_config

    if before is None:
        raise ConfigError(
            "--from-bench corrects a calibration for the server in front of the engine: give "
            "--from-steps too, or --calibration-data"
        )
    if len(arguments.from_bench) > 1:
        raise ConfigError(
            f"--from-bench got {len(arguments.from_bench)} files: give the one light run that the "
            "correction is fitted to"
        )
    _progress(arguments)("server correction")
    config = measured_config(before, arguments.model, arguments.xpu, _engine_settings(arguments))
    asked = AskedLengths(
        input_len=arguments.input_len,
        output_len=arguments.output_len,
        batch_size=arguments.batch_size,
    )
    path = Path(arguments.from_bench[0])
    corrected, correction = calibrate_from_bench(before, path, config, asked=asked)
    errors = ", ".join(f"{name} {error:+.1%}" for name, error in correction.errors.items())
    front_end = correction.front_end
    lines = [f"server: steps x{correction.step_factor:.3f}"]
    if front_end is not None:
        lines[0] += f", front end {front_end.request_latency_ms:.2f} ms"
    return Outcome(
        corrected, (*lines, f"  left on the fitted means: {errors}"), correction.warnings
    )


_SOURCES: dict[str, Source] = {"from_steps": _from_steps, "from_bench": _from_bench}
"""In the order in which they run: each gets the calibration of the one before."""


def add_calibrate_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``calibrate``; the handler is in ``args.run``."""
    parser = subparsers.add_parser(
        "calibrate", help="fit the calibrated roofline to measurements", description=DESCRIPTION
    )
    add = parser.add_argument_group("measurements").add_argument
    add("--from-steps", nargs="+", metavar="FILE", help="logs of engine steps, plain or gzipped")
    add(
        "--from-bench",
        nargs="+",
        metavar="FILE",
        help="result of one light run through a server: vllm bench serve, AIPerf, GuideLLM (or "
        "vllm bench latency, throughput)",
    )
    add("--calibration-data", metavar="FILE", help="calibration that --from-bench corrects")
    text = "steps dropped at the start of a log (default: what the log says, else 5 %%)"
    add("--warm-up-steps", type=_at_least(0), metavar="N", help=text)
    text = "resamplings behind the confidence intervals (default: 200)"
    add("--bootstrap-samples", type=_at_least(20), metavar="N", default=200, help=text)
    for name, text in (
        ("input-len", "prompt tokens of a vllm bench latency or throughput result"),
        ("output-len", "output tokens of the same"),
        ("batch-size", "batch of a vllm bench latency result"),
    ):
        add(f"--{name}", type=_at_least(1), metavar="N", help=text)
    _add_subject(parser)
    out = parser.add_argument_group("output").add_argument
    out("--output", metavar="FILE", required=True, help="calibration file to write")
    out("--json", action="store_true", help="print the calibration file too")
    out("--quiet", action="store_true", help="print nothing but warnings")
    parser.set_defaults(run=run_calibrate)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what was measured").add_argument
    add("--model", required=True, metavar="NAME", help="catalogue name, config.json or its folder")
    add("--xpu", required=True, metavar="NAME", help="accelerator; cpu for the processor")
    add("--tensor-parallel-size", "-tp", type=_at_least(1), metavar="N", help="default: 1")
    add("--dtype", choices=("auto", "bfloat16", "float16"), help="activations (default: auto)")
    add("--quantization", "-q", choices=("fp8", "int8", "int4"), help="weights")
    add("--kv-cache-dtype", choices=("auto", "bfloat16", "float16", "fp8"), help="KV cache")
    for name, text in (
        ("max-num-seqs", "most requests that ran together"),
        ("max-num-batched-tokens", "most tokens of a step"),
        ("max-model-len", "most tokens of a request"),
        ("block-size", "tokens of a KV-cache block"),
        ("num-gpu-blocks-override", "blocks of the KV cache"),
    ):
        add(f"--{name}", type=_count, metavar="N", help=f"{text} (default: what the log says)")
    for name in ("enable-prefix-caching", "async-scheduling"):
        add(f"--{name}", action=argparse.BooleanOptionalAction, help="as the log says by default")


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Handle ``calibrate``; returns the exit code."""
    from llm_inference_simulator.calibration import load_calibration
    from llm_inference_simulator.files import check_writable

    used = {name: source for name, source in _SOURCES.items() if getattr(arguments, name)}
    if not used:
        flags = " or ".join(f"--{name.replace('_', '-')}" for name in _SOURCES)
        raise ConfigError(f"no measurements: give {flags}")
    output = Path(arguments.output)
    check_writable(output, "--output")
    calibration: CalibrationFile | None = None
    if arguments.calibration_data is not None:
        calibration, _ = load_calibration(arguments.calibration_data)
        _require_same_subject(arguments, calibration)
    lines: list[str] = []
    for source in used.values():
        outcome = source(arguments, calibration)
        calibration = outcome.calibration
        lines += outcome.lines
        for warning in outcome.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    if calibration is None:
        raise CalibrationError("the measurements gave no calibration")
    _write(calibration, output)
    if arguments.json:
        print(json.dumps(calibration.model_dump(mode="json"), indent=2))
    elif not arguments.quiet:
        print("\n".join([*lines, f"wrote {output}"]))
    return 0


def describe(calibration: CalibrationFile) -> list[str]:
    """The parameters with their intervals and the error, a line each."""
    lines = []
    for name, value in calibration.roofline_params.model_dump(exclude_none=True).items():
        interval = calibration.intervals.get(name)
        if interval is not None:
            known = f"  {calibration.confidence:.0%} {interval.low:,.4g} to {interval.high:,.4g}"
        else:
            known = f"  assumed {calibration.assumed.get(name, '')}"
        lines.append(f"{name:36} {value:>10,.4g}{known}")
    error = calibration.held_out_error
    if error is not None:
        lines.append(
            f"steps held out: {error.mean_absolute_percent:.1f} % off in the mean, "
            f"{error.p90_absolute_percent:.1f} % at p90, bias {error.bias_percent:+.1f} % "
            f"({error.points:,} steps)"
        )
    return lines


def _write(calibration: CalibrationFile, output: Path) -> None:
    try:
        calibration.write(output)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror}") from None


def _require_same_subject(arguments: argparse.Namespace, calibration: CalibrationFile) -> None:
    """--calibration-data names what it was measured on; the flags must not contradict it."""
    size = arguments.tensor_parallel_size
    if size is not None and calibration.tensor_parallel_size not in (None, size):
        raise ConfigError(
            f"--tensor-parallel-size {size} contradicts --calibration-data, which was measured "
            f"with {calibration.tensor_parallel_size}: leave the flag out"
        )


def _engine_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of the engine that were given as flags."""
    names = (
        "dtype", "quantization", "kv_cache_dtype", "max_num_seqs", "max_num_batched_tokens",
        "max_model_len", "block_size", "num_gpu_blocks_override", "enable_prefix_caching",
        "async_scheduling",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def _engine(arguments: argparse.Namespace) -> Any:
    from llm_inference_simulator.config import EngineConfig

    return EngineConfig.parse(_engine_settings(arguments), source="flags")


def _paths(names: list[str]) -> list[Path]:
    return [Path(name) for name in names]


def _progress(arguments: argparse.Namespace) -> Callable[[str], None]:
    """Name the stages on a terminal; a pipe gets results only."""
    if arguments.quiet or not sys.stderr.isatty():
        return lambda _: None
    return lambda stage: print(f"{stage} ...", file=sys.stderr)


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = whole_number(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
        return value

    return parse


def _count(text: str) -> int:
    value = token_count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1")
    return value
