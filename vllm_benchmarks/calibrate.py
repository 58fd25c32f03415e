"""Measure, estimate, write: what ``scripts/run_calibration.py`` does."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_inference_simulator.capacity import plan_memory
from llm_inference_simulator.catalog import load_model, load_xpu
from llm_inference_simulator.catalog.models import list_models
from llm_inference_simulator.cli.calibrate import describe
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CapacityError, ConfigError, SimulatorError
from llm_inference_simulator.files import check_writable
from llm_inference_simulator.performance_models import RooflinePerformanceModel
from vllm_benchmarks.benchmark_runner import run_plan
from vllm_benchmarks.calibration_flags import build_parser
from vllm_benchmarks.data_collector import collect, read_points, write_step_log
from vllm_benchmarks.experiment_config import ExperimentConfig, expected_seconds
from vllm_benchmarks.html_summary import write_summary
from vllm_benchmarks.roofline_estimator import estimate_from_server, estimate_from_steps
from vllm_benchmarks.runners.offline import OfflineRunner, OfflineSettings
from vllm_benchmarks.runners.server import ServerRunner
from vllm_benchmarks.runners.server import describe as describe_point
from vllm_benchmarks.runners.sse_client import Endpoint
from vllm_benchmarks.schema import BenchmarkHeader, PlannedPoint

_LONGEST_BY_DEFAULT = 32768
_OTHER_SOURCES = (
    "or measure a running server (--runner server --base-url URL), or use files that you have "
    "(python -m llm_inference_simulator calibrate --help)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        return _calibrate(build_parser().parse_all(sys.argv[1:] if argv is None else argv))
    except SimulatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept, the same command goes on", file=sys.stderr)
        return 130
    except SystemExit as exit_:  # argparse's --help
        return exit_.code if isinstance(exit_.code, int) else 0


def _calibrate(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    config = _experiment(arguments, engine)
    plan = _plan(config, arguments.runner)
    if arguments.dry_run:
        print("\n".join(_describe_plan(plan, config, arguments, engine)))
        return 0
    check_writable(arguments.output, "--output")
    folder: Path = arguments.data_dir or arguments.output.with_name(f"{arguments.output.stem}_data")
    if arguments.runner == "offline":
        points, log = _measure_offline(arguments, config, plan, folder)
    else:
        points, log = _measure_server(arguments, config, plan, folder), None
    data = read_points(points)
    told: dict[str, Any] = {
        "engine": engine,
        "bootstrap_samples": arguments.bootstrap_samples,
        "progress": lambda stage: print(f"{stage} ...", file=sys.stderr),
    }
    if log is None:
        made = estimate_from_server(points, data, **told)
    else:
        made = estimate_from_steps(log, data, **told)
    made.calibration.write(arguments.output)
    summary = folder / "summary.html"
    warnings = [*made.fit.warnings, *write_summary(summary, made)]
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join([*describe(made.calibration), f"wrote {arguments.output} and {summary}"]))
    return 0


def _engine(arguments: argparse.Namespace) -> EngineConfig:
    names = (
        "dtype", "quantization", "kv_cache_dtype", "max_num_seqs", "max_num_batched_tokens",
        "max_model_len", "block_size",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names}
    return EngineConfig.parse(
        {name: value for name, value in given.items() if value is not None}, source="flags"
    )


def _experiment(arguments: argparse.Namespace, engine: EngineConfig) -> ExperimentConfig:
    """The plan within the engine's limits, as far as they are known before it starts."""
    model, xpu = load_model(arguments.model), load_xpu(arguments.xpu)
    longest = engine.max_model_len or min(model.max_position_embeddings, _LONGEST_BY_DEFAULT)
    limited = engine.model_copy(update={"max_model_len": longest})
    try:
        memory = plan_memory(model, xpu, limited, arguments.tensor_parallel_size)
    except CapacityError as error:
        raise ConfigError(f"the engine to be measured cannot run: {error}") from None
    optional = ("max_context", "sparse_points", "sampling", "repeats", "decode_steps", "seed")
    given = {name: getattr(arguments, name) for name in optional}
    return ExperimentConfig(
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_model_len=longest,
        kv_cache_tokens=(memory.num_gpu_blocks - 1) * engine.block_size,
        sparse=arguments.sparse,
        **{name: value for name, value in given.items() if value is not None},
    )


def _plan(config: ExperimentConfig, runner: str) -> list[PlannedPoint]:
    plan = config.plan()
    if runner == "server":
        plan = [point for point in plan if ServerRunner.measures(point)]
    _require_points(plan, config)
    return plan


def _require_points(plan: Sequence[PlannedPoint], config: ExperimentConfig) -> None:
    if not plan:
        raise ConfigError(
            "no point to measure fits the engine: "
            f"--max-num-batched-tokens {config.max_num_batched_tokens}, "
            f"--max-model-len {config.max_model_len}, --max-num-seqs {config.max_num_seqs}, "
            f"--decode-steps {config.decode_steps} and a KV cache of {config.kv_cache_tokens} "
            "tokens; raise the smallest"
        )


def _describe_plan(
    plan: Sequence[PlannedPoint],
    config: ExperimentConfig,
    arguments: argparse.Namespace,
    engine: EngineConfig,
) -> list[str]:
    lines = [describe_point(point) for point in plan]
    total = f"{len(plan)} points, {config.repeats} repeats each"
    if load_xpu(arguments.xpu).has_peaks:
        model = RooflinePerformanceModel(
            arguments.model,
            arguments.xpu,
            arguments.tensor_parallel_size,
            engine=engine,
            max_model_len=config.max_model_len,
        )
        seconds = expected_seconds(
            list(plan), config, model.estimate_prefill_time, model.estimate_decode_time
        )
        # Each point is also run once to warm up.
        seconds *= (config.repeats + 1) / config.repeats
        return [*lines, f"{total}, about {max(seconds, 1):,.0f} s and the engine's start"]
    return [*lines, f"{total}; how long that takes is not known for xpu={arguments.xpu}"]


def _measure_offline(
    arguments: argparse.Namespace,
    config: ExperimentConfig,
    plan: list[PlannedPoint],
    folder: Path,
) -> tuple[Path, Path]:
    """Measure with vLLM in this process; returns the points and the step log made of them."""
    with _vllm_model(arguments) as model:
        settings = OfflineSettings(
            model=model,
            tensor_parallel_size=arguments.tensor_parallel_size,
            dtype=arguments.dtype,
            quantization=arguments.quantization,
            kv_cache_dtype=arguments.kv_cache_dtype,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_model_len=config.max_model_len,
            block_size=arguments.block_size,
            async_scheduling=arguments.async_scheduling,
            enforce_eager=arguments.enforce_eager,
        )
        try:
            runner = OfflineRunner(
                settings,
                repeats=config.repeats,
                decode_steps=config.decode_steps,
                seed=config.seed,
            )
        except ConfigError as error:
            if "not installed" in str(error):
                raise ConfigError(f"{error}; {_OTHER_SOURCES}") from None
            raise
    real = runner.settings
    cached = (real["num_gpu_blocks"] - 1) * real["block_size"]
    limited = config.model_copy(update={"kv_cache_tokens": cached})
    header = _header(arguments, real, runner.environment)
    points = folder / "raw" / "points.jsonl"
    fitting = [point for point in plan if limited.fits(point)]
    _require_points(fitting, limited)
    with collect(points, header) as collector:
        run_plan(runner, fitting, collector)
    log = folder / "processed" / "steps.jsonl.gz"
    write_step_log(read_points(points), log)
    return points, log


def _measure_server(
    arguments: argparse.Namespace,
    config: ExperimentConfig,
    plan: list[PlannedPoint],
    folder: Path,
) -> Path:
    """Measure through a server; returns the points."""
    if arguments.base_url is None:
        raise ConfigError("--runner server needs --base-url, as in http://localhost:8000")
    endpoint = Endpoint(
        base_url=arguments.base_url,
        api_key=os.environ.get(arguments.api_key_variable),
        total_timeout_s=arguments.timeout,
        idle_timeout_s=arguments.idle_timeout,
    )
    runner = ServerRunner(
        endpoint=endpoint,
        model=arguments.served_model_name or _served_model(endpoint),
        vocabulary=load_model(arguments.model).vocab_size,
        repeats=config.repeats,
        decode_steps=config.decode_steps,
        seed=config.seed,
    )
    problem = runner.warm_up(plan)
    if problem is not None:
        raise ConfigError(f"--base-url {arguments.base_url} answers no request ({problem})")
    environment = {"system": f"{platform.system()} {platform.release()}", "base_url": "given"}
    points = folder / "raw" / "points.jsonl"
    with collect(points, _header(arguments, {}, environment)) as collector:
        run_plan(runner, plan, collector)
    return points


def _header(
    arguments: argparse.Namespace, engine: dict[str, Any], environment: dict[str, Any]
) -> BenchmarkHeader:
    return BenchmarkHeader(
        runner=arguments.runner,
        model=arguments.model,
        xpu=load_xpu(arguments.xpu).name,
        tensor_parallel_size=arguments.tensor_parallel_size,
        engine=engine,
        environment=environment,
    )


@contextlib.contextmanager
def _vllm_model(arguments: argparse.Namespace) -> Iterator[str]:
    """The model as vLLM takes it: a folder with config.json, made for a catalogue name."""
    if arguments.vllm_model is not None:
        yield arguments.vllm_model
        return
    with tempfile.TemporaryDirectory(prefix="run_calibration.") as name:
        text = _config_file(arguments.model).read_text(encoding="utf-8")
        (Path(name) / "config.json").write_text(text, encoding="utf-8")
        yield name


def _config_file(model: str) -> Path:
    """The config.json behind a name that :func:`load_model` has accepted."""
    for entry in list_models():
        if model.casefold() in (name.casefold() for name in entry.names):
            return entry.config_file
    path = Path(model).expanduser()
    return path / "config.json" if path.is_dir() else path


def _served_model(endpoint: Endpoint) -> str:
    """The first model that a server lists."""
    secure, host, port, prefix = endpoint.address()
    url = f"{'https' if secure else 'http'}://{host}:{port}{prefix}/models"
    headers = {} if endpoint.api_key is None else {"Authorization": f"Bearer {endpoint.api_key}"}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=endpoint.idle_timeout_s) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except (urllib.error.URLError, OSError) as error:
        raise ConfigError(f"--base-url {endpoint.base_url} cannot be reached: {error}") from None
    except http.client.HTTPException as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"--base-url {endpoint.base_url} does not speak HTTP ({told[:80]}): give the address "
            "of an OpenAI-compatible server"
        ) from None
    except (ValueError, LookupError, TypeError):
        raise ConfigError(
            f"--base-url {endpoint.base_url} lists no models: give --served-model-name"
        ) from None
