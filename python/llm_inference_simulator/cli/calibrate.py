"""The subcommand ``calibrate``: measurements in, calibration file out.

A source of measurements is an entry of ``_SOURCES``: its flag, and the function that makes or
improves a calibration from the files given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_inference_simulator.cli.arguments import at_least, some_tokens
from llm_inference_simulator.cli.calibrate_uses import refuse_unused
from llm_inference_simulator.errors import CalibrationError, ConfigError

if TYPE_CHECKING:
    from llm_inference_simulator.calibration import CalibrationFile
    from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
    from llm_inference_simulator.validation import RunErrors

    AnyCalibration = CalibrationFile | KernelCalibration

DESCRIPTION = """\
Make a calibration file from measurements: effective rates of one model's roofline
(vllm_roofline), or kernel tables of an accelerator (op_table).

examples
  llm-inference-simulator calibrate --from-steps steps.jsonl.gz \\
    --model llama-3.1-8b --xpu h100 --output calibration.json
  llm-inference-simulator calibrate --from-bench serve.json --calibration-data calibration.json \\
    --model llama-3.1-8b --xpu h100 --output calibration_server.json
  llm-inference-simulator calibrate --from-op-tables h100_sxm --xpu h100 \\
    --from-runs runs.json --output kernels.json.gz"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A calibration, and what its maker wants to say."""

    calibration: AnyCalibration
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Source = Callable[[argparse.Namespace, "AnyCalibration | None"], Outcome]
"""Makes a calibration from the files of its flag; given one, it improves that."""


def _from_steps(arguments: argparse.Namespace, before: AnyCalibration | None) -> Outcome:
    from llm_inference_simulator.calibration.step_fit import BOOTSTRAP_SAMPLES
    from llm_inference_simulator.calibrators import calibrate_from_steps

    _require_model(arguments, "--from-steps")
    if before is not None:
        raise ConfigError(
            "--from-steps makes a calibration anew: leave out --calibration-data and other sources"
        )
    made = calibrate_from_steps(
        _paths(arguments.from_steps),
        model=arguments.model,
        xpu=arguments.xpu,
        tensor_parallel_size=arguments.tensor_parallel_size or 1,
        engine=_engine(arguments),
        warm_up_steps=arguments.warm_up_steps,
        bootstrap_samples=arguments.bootstrap_samples or BOOTSTRAP_SAMPLES,
        progress=_progress(arguments),
    )
    calibration = _with_flags(made.calibration, _engine_settings(arguments))
    return Outcome(calibration, tuple(describe(calibration)), made.fit.warnings)


def _with_flags(calibration: CalibrationFile, given: dict[str, Any]) -> CalibrationFile:
    """Note the engine's settings that were given as flags; others are what the log says."""
    from llm_inference_simulator.calibration.parameters import MeasuredEngine

    engine = calibration.engine or MeasuredEngine()
    told = {name: value for name, value in given.items() if name in MeasuredEngine.model_fields}
    if "num_gpu_blocks_override" in given:
        told["num_gpu_blocks"] = given["num_gpu_blocks_override"]
    return calibration.model_copy(update={"engine": engine.model_copy(update=told)})


def _from_bench(arguments: argparse.Namespace, before: AnyCalibration | None) -> Outcome:
    from llm_inference_simulator.calibration import CalibrationFile
    from llm_inference_simulator.calibration.bench_results import AskedLengths
    from llm_inference_simulator.calibrators import calibrate_from_bench
    from llm_inference_simulator.calibrators.from_bench import measured_config

    _require_model(arguments, "--from-bench")
    if not isinstance(before, CalibrationFile):
        raise ConfigError(
            "--from-bench corrects a calibration for the server in front of the engine: give "
            "--from-steps too, or --calibration-data"
        )
    _progress(arguments)("server correction")
    config = measured_config(before, arguments.model, arguments.xpu, _engine_settings(arguments))
    asked = AskedLengths(
        input_len=arguments.input_len,
        output_len=arguments.output_len,
        batch_size=arguments.batch_size,
    )
    paths = [Path(file) for file in arguments.from_bench]
    corrected, correction = calibrate_from_bench(before, paths, config, asked=asked)
    front_end = correction.front_end
    lines = [f"server: steps x{correction.step_factor:.3f}"]
    if front_end is not None:
        lines[0] += f", front end {front_end.request_latency_ms:.2f} ms"
    for path, errors in zip(paths, correction.errors, strict=True):
        left = ", ".join(f"{name} {error:+.1%}" for name, error in errors.items())
        lines.append(f"  left on the means of {path.name}: {left}")
    return Outcome(corrected, tuple(lines), correction.warnings)


def _from_op_tables(arguments: argparse.Namespace, before: AnyCalibration | None) -> Outcome:
    from llm_inference_simulator.calibrators.from_kernels import calibrate_from_op_tables

    return _kernels(arguments, before, "--from-op-tables", calibrate_from_op_tables)


def _from_kernel_profiles(arguments: argparse.Namespace, before: AnyCalibration | None) -> Outcome:
    from llm_inference_simulator.calibrators.from_kernels import calibrate_from_kernel_profiles

    return _kernels(arguments, before, "--from-kernel-profiles", calibrate_from_kernel_profiles)


def _kernels(
    arguments: argparse.Namespace,
    before: AnyCalibration | None,
    flag: str,
    read: Callable[[Path, str], KernelCalibration],
) -> Outcome:
    if before is not None:
        raise ConfigError(f"{flag} makes a calibration anew: leave the other source out")
    folder = getattr(arguments, flag.removeprefix("--").replace("-", "_"))
    _progress(arguments)("reading kernel tables")
    calibration = read(Path(folder), arguments.xpu)
    if arguments.overheads_from is not None:
        calibration = calibration.with_overheads_of(arguments.overheads_from)
    lines = [
        f"{calibration.xpu}: {calibration.tables.points:,} points in "
        f"{len(calibration.tables)} tables",
        *calibration.provenance.get("notes", ()),
    ]
    return Outcome(calibration, tuple(lines))


def _from_runs(arguments: argparse.Namespace, before: AnyCalibration | None) -> Outcome:
    from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
    from llm_inference_simulator.validation import read_runs
    from llm_inference_simulator.validation.overhead_fit import CONSTANTS, fit_overheads

    if not isinstance(before, KernelCalibration):
        raise ConfigError(
            "--from-runs fits what kernel tables do not show: give --from-op-tables or "
            "--from-kernel-profiles too, or kernel tables as --calibration-data"
        )
    runs = [run for path in arguments.from_runs for run in read_runs(path)]
    fit = fit_overheads(runs, before, report=_progress(arguments))
    lines = [
        f"{constant.name:24} {fit.values[constant.name]:9.3f} {constant.unit:3} "
        + (
            "not told by these runs: as before"
            if constant.name in fit.untold
            else f"+- {fit.spread[constant.name]:.3f} over fits that leave a run out"
        )
        for constant in CONSTANTS
    ]
    for title, runs_errors in (("fitted runs", fit.fitted), ("runs left out", fit.held_out)):
        lines.append(f"mean |error| of {len(runs_errors)} {title}: {mean_errors(runs_errors)}")
    return Outcome(fit.calibration, tuple(lines))


def mean_errors(runs: Sequence[RunErrors]) -> str:
    """Mean absolute errors of E2E, TTFT and ITL in percent, in words."""
    from llm_inference_simulator.validation import summarise

    summary = summarise(runs)
    assert summary is not None
    overall = summary["overall"]
    return ", ".join(
        f"{name} {overall[metric]['mean']:.1f} %"
        for name, metric in (("E2E", "e2e_mean"), ("TTFT", "ttft_mean"), ("ITL", "itl_mean"))
        if metric in overall
    )


def _roofline_of_model(arguments: argparse.Namespace, kernels: KernelCalibration) -> Outcome:
    """Kernel tables and a model: the effective rates of that model."""
    from llm_inference_simulator.calibration.step_fit import BOOTSTRAP_SAMPLES
    from llm_inference_simulator.calibrators.from_kernels import derive_roofline

    calibration = derive_roofline(
        kernels,
        model=arguments.model,
        tensor_parallel_size=arguments.tensor_parallel_size or 1,
        engine=_engine(arguments),
        bootstrap_samples=arguments.bootstrap_samples or BOOTSTRAP_SAMPLES,
        progress=_progress(arguments),
    )
    return Outcome(calibration, tuple(describe(calibration)))


def _require_model(arguments: argparse.Namespace, flag: str) -> None:
    if arguments.model is None:
        raise ConfigError(f"{flag} needs --model: the model that was measured")


_SOURCES: dict[str, Source] = {
    "from_op_tables": _from_op_tables,
    "from_kernel_profiles": _from_kernel_profiles,
    "from_runs": _from_runs,
    "from_steps": _from_steps,
    "from_bench": _from_bench,
}
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
        help="results of light runs through a server: vllm bench serve, AIPerf, GuideLLM (or "
        "vllm bench latency, throughput)",
    )
    add("--from-op-tables", metavar="DIR", help="an accelerator's tables of aiconfigurator-core")
    add("--from-kernel-profiles", metavar="DIR", help="an accelerator's profiles of LLMServingSim")
    text = "kernel tables whose overheads to take over: a file or a shipped name"
    add("--overheads-from", metavar="NAME", help=text)
    text = "measured runs (as validate reads them) to fit overheads of kernel tables to"
    add("--from-runs", nargs="+", metavar="FILE", help=text)
    text = "calibration that --from-bench or --from-runs improves: a file or a shipped name"
    add("--calibration-data", metavar="FILE", help=text)
    text = "steps dropped at the start of a log (default: what the log says, else 5 %%)"
    add("--warm-up-steps", type=at_least(0), metavar="N", help=text)
    text = "resamplings behind the confidence intervals (default: 200)"
    add("--bootstrap-samples", type=at_least(20), metavar="N", help=text)
    for name, text in (
        ("input-len", "prompt tokens of a vllm bench latency or throughput result"),
        ("output-len", "output tokens of the same"),
        ("batch-size", "batch of a vllm bench latency result"),
    ):
        add(f"--{name}", type=at_least(1), metavar="N", help=text)
    _add_subject(parser)
    out = parser.add_argument_group("output").add_argument
    out("--output", metavar="FILE", required=True, help="calibration file to write")
    out("--json", action="store_true", help="print the calibration file too")
    out("--quiet", action="store_true", help="print nothing but warnings")
    parser.set_defaults(run=run_calibrate)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what was measured").add_argument
    text = "catalogue name, config.json or its folder; with kernel tables: derive its roofline"
    add("--model", metavar="NAME", help=text)
    add("--xpu", required=True, metavar="NAME", help="accelerator; cpu for the processor")
    add("--tensor-parallel-size", "-tp", type=at_least(1), metavar="N", help="default: 1")
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
        add(f"--{name}", type=some_tokens, metavar="N", help=f"{text} (default: what the log says)")
    for name in ("enable-prefix-caching", "async-scheduling"):
        add(f"--{name}", action=argparse.BooleanOptionalAction, help="as the log says by default")


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Handle ``calibrate``; returns the exit code."""
    from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
    from llm_inference_simulator.calibration.shipped import open_calibration
    from llm_inference_simulator.files import check_writable

    used = {name: source for name, source in _SOURCES.items() if getattr(arguments, name)}
    derives = arguments.calibration_data is not None and arguments.model is not None
    if not used and not derives:
        flags = " or ".join(f"--{name.replace('_', '-')}" for name in _SOURCES)
        raise ConfigError(f"no measurements: give {flags}")
    refuse_unused(arguments, used)
    output = Path(arguments.output)
    check_writable(output, "--output")
    calibration: AnyCalibration | None = None
    if arguments.calibration_data is not None:
        calibration = open_calibration(arguments.calibration_data)
        _require_same_subject(arguments, calibration)
        if not used and not isinstance(calibration, KernelCalibration):
            raise ConfigError(
                f"no measurements: --calibration-data {arguments.calibration_data} holds the rates "
                "of a model already; give kernel tables to derive those of --model, or --from-bench"
            )
    lines: list[str] = []
    for source in used.values():
        outcome = source(arguments, calibration)
        calibration = outcome.calibration
        lines += outcome.lines
        for warning in outcome.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    if isinstance(calibration, KernelCalibration) and arguments.model is not None:
        outcome = _roofline_of_model(arguments, calibration)
        calibration = outcome.calibration
        lines += outcome.lines
    if calibration is None:
        raise CalibrationError("the measurements gave no calibration")
    _write(calibration, output)
    if arguments.json:
        if isinstance(calibration, KernelCalibration):
            data = calibration.document()
        else:
            data = calibration.model_dump(mode="json")
        print(json.dumps(data, indent=2))
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


def _write(calibration: AnyCalibration, output: Path) -> None:
    try:
        calibration.write(output)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror}") from None


def _require_same_subject(arguments: argparse.Namespace, calibration: AnyCalibration) -> None:
    """--calibration-data names what it was measured on; the flags must not contradict it."""
    from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
    from llm_inference_simulator.catalog import canonical_xpu_name, load_model, load_xpu
    from llm_inference_simulator.catalog.models import list_models

    if isinstance(calibration, KernelCalibration):
        calibration.require_xpu(load_xpu(arguments.xpu))
        return
    xpu = canonical_xpu_name(load_xpu(arguments.xpu).name)
    if calibration.xpu is not None and canonical_xpu_name(calibration.xpu) != xpu:
        raise ConfigError(
            f"--xpu {arguments.xpu} contradicts --calibration-data, which was measured on "
            f"{calibration.xpu}: give that one"
        )
    if arguments.model is not None and calibration.model is not None:
        names = {load_model(arguments.model).name, calibration.model}
        known = {name.casefold() for entry in list_models() for name in entry.names}
        # Files outside the catalogue may have moved: their paths tell nothing.
        if len(names) > 1 and any(name.casefold() in known for name in names):
            raise ConfigError(
                f"--model {arguments.model} contradicts --calibration-data, which was measured "
                f"with {calibration.model}: give that one"
            )
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
