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
import sys
from collections.abc import Sequence

from llm_inference_simulator.errors import ConfigError, SimulatorError
from llm_inference_simulator.files import check_writable
from vllm_benchmarks.decision_traces import SETTINGS
from vllm_benchmarks.recording.clock import drive
from vllm_benchmarks.recording.decision_log import DecisionLog
from vllm_benchmarks.recording.flags import build_parser
from vllm_benchmarks.recording.installed_vllm import import_vllm, vllm_errors
from vllm_benchmarks.recording.offline_engine import OfflineEngine, check_offline
from vllm_benchmarks.recording.prompts import Prompts
from vllm_benchmarks.recording.scheduler_engine import SchedulerEngine
from vllm_benchmarks.recording.tiny_model import model_folder
from vllm_benchmarks.recording.workload import read_workload
from vllm_benchmarks.recording.writer import trace_writer


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
