"""The flags of ``run``. A flag's destination is the place of its value in the configuration.

Nothing here imports the configuration: ``--help`` stays fast. A test holds the defaults named in
the texts equal to the configuration's.
"""

from __future__ import annotations

from llm_inference_simulator.cli.arguments import (
    Parser,
    percentiles,
    rate_schedule,
    rate_stages,
    real,
    token_count,
    whole_number,
)
from llm_inference_simulator.cli.flags import Flag, Group, Switch

DESCRIPTION = """\
Simulate a cluster of LLM serving engines with vLLM V1's scheduling rules.

commands (without one: run)
  run        one simulation
  models     list the models of the catalogue, or show one
  xpus       list the accelerators of the catalogue, or show one
  calibrate  make a calibration file from measurements
  validate   predict measured runs and print how far off that is

example
  llm-inference-simulator --model llama-7b --xpu gb10 --arrival-rate 5"""

EPILOG = """\
Token counts take vLLM's suffixes: 32K = 32,768, 25.6k = 25,600.
Flags override --config.

exit codes
  0 done, 1 internal error, 2 bad input, 3 --fail-on holds, 130 interrupted"""


def _batching_strategy(text: str) -> str:
    return "static" if text == "greedy" else text


WHAT_RUNS = Group(
    "what runs",
    "cluster",
    (
        Flag(
            "--config",
            str,
            "FILE",
            "the whole configuration, YAML or JSON",
            field="config_file",
            section="command",
        ),
        Flag("--model", str, "NAME", "catalogue name, config.json or its folder", section=""),
        Flag("--xpu", str, "NAME", "accelerator: catalogue name or YAML file", section=""),
        Flag(
            "--n-xpus-per-node",
            whole_number,
            "N",
            "accelerators in a node (default: what the engines need)",
        ),
        Flag("--n-nodes", whole_number, "N", "nodes (default: 1)"),
        Flag(
            "--tensor-parallel-size -tp --tp",
            whole_number,
            "N",
            "accelerators per engine, or per stage of it (default: 1)",
        ),
        Flag(
            "--pipeline-parallel-size -pp --pp",
            whole_number,
            "N",
            "stages that an engine's layers are divided into (default: 1)",
        ),
        Flag(
            "--inter-node-bandwidth",
            real,
            "GB_PER_S",
            "of an accelerator to another node, for stages on several (default: none)",
            field="inter_node_bandwidth_gb_s",
        ),
        Flag(
            "--inter-node-latency",
            real,
            "US",
            "of a batch between stages on different nodes (default: 10)",
            field="inter_node_latency_us",
        ),
        Flag(
            "--data-parallel-size -dp --dp",
            whole_number,
            "N",
            "engines (default: as many as the accelerators allow)",
        ),
        Flag(
            "--router",
            str,
            "POLICY",
            "round_robin, random, least_outstanding, least_outstanding_tokens, power_of_two, "
            "session_affinity or prefix_aware (default: round_robin)",
        ),
        Flag(
            "--router-view-delay-ms",
            real,
            "MS",
            "prefix_aware: how late the router learns what an engine got (default: 0)",
        ),
        Flag(
            "--router-imbalance",
            whole_number,
            "N",
            "prefix_aware: requests above the idlest engine's that rule one out (default: 32)",
        ),
        Flag(
            "--dtype",
            str,
            "TYPE",
            "auto, bfloat16 or float16 (default: auto, the model's own)",
            section="engine",
        ),
        Flag(
            "--quantization -q",
            str,
            "FORMAT",
            "weights as fp8, int8 or int4 (default: the model's own)",
            section="engine",
        ),
        Flag(
            "--kv-cache-dtype",
            str,
            "TYPE",
            "auto, bfloat16, float16 or fp8 (default: auto)",
            section="engine",
        ),
    ),
)

_DISAGGREGATION = Group(
    "disaggregated serving (more pools: cluster.pools of --config)",
    "transfer",
    (
        Switch("--disaggregated", "prefill and decode on engines of their own", section="command"),
        *(
            flag
            for role in ("prefill", "decode")
            for flag in (
                Flag(
                    f"--{role}-xpu",
                    str,
                    "NAME",
                    f"accelerator of {role} engines (default: --xpu)",
                    field="xpu",
                    section=role,
                ),
                Flag(
                    f"--{role}-n-xpus",
                    whole_number,
                    "N",
                    "their number (default: what one engine needs)",
                    field="n_xpus",
                    section=role,
                ),
                Flag(
                    f"--{role}-tp",
                    whole_number,
                    "N",
                    "accelerators per engine, or per stage of it (default: 1)",
                    field="tensor_parallel_size",
                    section=role,
                ),
                Flag(
                    f"--{role}-pp",
                    whole_number,
                    "N",
                    "stages that an engine's layers are divided into (default: 1)",
                    field="pipeline_parallel_size",
                    section=role,
                ),
            )
        ),
        Flag(
            "--transfer-bandwidth",
            real,
            "GB_PER_S",
            "of each engine's link for keys and values (default: none, it must be given)",
            field="bandwidth_gb_s",
        ),
        Flag(
            "--transfer-latency",
            real,
            "MS",
            "from the reservation of blocks until bytes flow (default: 0)",
            field="latency_ms",
        ),
        Flag(
            "--transfer-fabric-bandwidth",
            real,
            "GB_PER_S",
            "of all transfers together (default: no limit)",
            field="fabric_bandwidth_gb_s",
        ),
        Flag(
            "--transfer-mode",
            str,
            "NAME",
            "after_prefill, or layerwise: during a prompt's last step (default: after_prefill)",
            field="mode",
        ),
    ),
)

ENGINE = Group(
    "engine",
    "engine",
    (
        Flag(
            "--max-num-seqs",
            token_count,
            "N",
            "most requests that run together in an engine (default: 256)",
        ),
        Flag(
            "--max-num-batched-tokens",
            token_count,
            "TOKENS",
            "most tokens in a step (default: 8192)",
        ),
        Flag(
            "--max-model-len",
            token_count,
            "TOKENS",
            "longest prompt + output (default: the model's context, if it fits)",
        ),
        Flag(
            "--gpu-memory-utilization",
            real,
            "SHARE",
            "share of accelerator memory that the engine may use (default: 0.9)",
        ),
        Flag("--block-size", whole_number, "TOKENS", "tokens in a KV block (default: 16)"),
        Flag(
            "--num-gpu-blocks-override",
            token_count,
            "BLOCKS",
            "KV blocks of an engine (default: what memory holds)",
        ),
        Switch(
            "--enable-prefix-caching",
            "find blocks of earlier prompts (default: on)",
            negatable=True,
        ),
        Switch(
            "--enable-chunked-prefill",
            "split long prompts over steps (default: on)",
            negatable=True,
        ),
        Flag(
            "--long-prefill-token-threshold",
            token_count,
            "TOKENS",
            "most tokens of one request in a step; 0: no limit (default: 0)",
        ),
        Switch(
            "--long-prefill-token-threshold-adaptive",
            "raise that to max-num-batched-tokens / requests (default: off)",
            negatable=True,
        ),
        Flag("--scheduling-policy", str, "NAME", "fcfs or priority, lower first (default: fcfs)"),
        Switch(
            "--scheduler-reserve-full-isl",
            "admit only what fits with its whole prompt (default: on)",
            negatable=True,
        ),
        Flag(
            "--watermark",
            real,
            "SHARE",
            "share of KV blocks that admission leaves free (default: 0)",
        ),
        Switch(
            "--async-scheduling",
            "decide a step while the one before runs (default: on)",
            negatable=True,
        ),
        Switch(
            "--enable-expert-parallel",
            "spread whole experts over the accelerators (default: off, sliced)",
            negatable=True,
        ),
        Flag(
            "--generation-config",
            str,
            "NAME",
            "sampling defaults of requests: auto, the model's, or vllm, neutral (default: auto)",
        ),
        Flag(
            "--scheduling-overhead-ms",
            real,
            "MS",
            "host time before a step, hidden by async scheduling (default: 0)",
        ),
        Flag(
            "--batching-strategy",
            _batching_strategy,
            "NAME",
            "continuous, static (alias greedy) or windowed (default: continuous)",
        ),
        Flag(
            "--max-batch-size",
            token_count,
            "N",
            "further bound on requests that run together (default: none)",
        ),
        Flag(
            "--batch-window-ms",
            real,
            "MS",
            "windowed batching: longest wait for a full batch (default: 100)",
        ),
    ),
)

_FLEET = Group(
    "failures and admission (engines that die, drain and scale: fleet of --config)",
    "fleet",
    (
        Flag(
            "--max-queue",
            whole_number,
            "N",
            "waiting requests of an engine at which it rejects new ones (default: no limit)",
        ),
        Flag(
            "--request-timeout",
            real,
            "S",
            "seconds after which an unanswered request is given up (default: never)",
            field="request_timeout_s",
        ),
        Flag(
            "--max-retries",
            whole_number,
            "N",
            "times that a request lost with its engine is sent again (default: 0)",
        ),
    ),
)

FRONT_END = Group(
    "front end",
    "front_end",
    (
        Flag(
            "--request-latency-ms",
            real,
            "MS",
            "from client to engine: HTTP, tokenising (default: the calibration's, else 0)",
        ),
        Flag(
            "--response-latency-ms",
            real,
            "MS",
            "from the end of a step to the client (default: the calibration's, else 0)",
        ),
    ),
)

PERFORMANCE = Group(
    "performance",
    "performance",
    (
        Flag(
            "--performance-model",
            str,
            "NAME",
            "roofline, vllm_roofline or op_table (default: what the calibration data is for; "
            "without it op_table where kernel tables of the accelerator come along, else roofline)",
        ),
        Flag(
            "--calibration-data",
            str,
            "FILE",
            "calibration file or the name of a shipped one, as h100-sxm (default: the "
            "accelerator's shipped one, if there is one)",
        ),
        Flag(
            "--all-reduce",
            str,
            "NAME",
            "ring, tree or auto, the faster for each payload (default: auto); measured "
            "all-reduces stand for themselves",
        ),
        Flag(
            "--expert-distribution",
            str,
            "NAME",
            "how tokens spread over experts in kernel tables: balanced, power_law_1.01 or "
            "power_law_1.2 (default: power_law_1.2)",
        ),
        Flag(
            "--expert-load-imbalance",
            real,
            "FACTOR",
            "tokens of the busiest accelerator's experts over the mean (default: 1)",
        ),
    ),
)

_LOAD = Group(
    "load: when requests arrive",
    "workload",
    (
        Flag(
            "--arrival-rate --request-rate",
            real,
            "PER_S",
            "requests per second, or inf (default: a trace's own times, else inf: all at once)",
            field="request_rate",
        ),
        Flag(
            "--rate-stages",
            rate_stages,
            "PER_S:S,...",
            "stages of requests per second and seconds, as in 2.5:600,6:600; a rate of 0 is a "
            "pause (default: one rate)",
        ),
        Flag(
            "--rate-schedule",
            rate_schedule,
            "KIND:NAME=N,...",
            "a rate that changes: diurnal (mean_rate, amplitude, period), ramp (from_rate, "
            "to_rate, seconds) or bursts (base_rate, burst_rate, burst_seconds, period), as in "
            "ramp:from_rate=1,to_rate=9,seconds=60 (default: none)",
        ),
        Flag(
            "--burstiness",
            real,
            "SHAPE",
            "1: Poisson; below: burstier; inf: constant gaps (default: 1)",
        ),
        Flag(
            "--num-prompts",
            token_count,
            "N",
            "requests (default: 1000, or what --duration, a schedule or the trace gives)",
        ),
        Flag(
            "--duration",
            real,
            "S",
            "seconds in which requests arrive (default: until --num-prompts have)",
        ),
        Flag(
            "--max-concurrency",
            token_count,
            "N",
            "closed loop: most requests unanswered at once (default: no limit)",
        ),
        Flag(
            "--warm-up",
            real,
            "S",
            "seconds at the start whose arrivals are not counted (default: 0)",
            section="measurement",
        ),
    ),
)

_SESSIONS = Group(
    "load: sessions and agents (classes of requests: workload.classes of --config)",
    "workload",
    (
        Flag(
            "--session-turns",
            real,
            "MEAN",
            "turns of a session, each continuing the one before; rates count requests all the "
            "same (default: no sessions)",
        ),
        Flag(
            "--session-distribution",
            str,
            "NAME",
            "of turns and tool calls around their means: fixed or geometric (default: fixed)",
        ),
        Flag(
            "--think-time",
            real,
            "S",
            "mean seconds from an answer to the session's next turn (default: 0)",
        ),
        Flag(
            "--think-time-distribution",
            str,
            "NAME",
            "exponential or fixed (default: exponential)",
        ),
        Flag(
            "--tool-calls-per-turn",
            real,
            "MEAN",
            "answers of a turn that call a tool, whose result is the next request (default: 0)",
        ),
        Flag(
            "--tool-call-time",
            real,
            "S",
            "mean seconds from such an answer until the result is sent (default: 0)",
        ),
        Flag(
            "--tool-call-time-distribution",
            str,
            "NAME",
            "exponential or fixed (default: exponential)",
        ),
        Flag(
            "--tool-result-len",
            token_count,
            "TOKENS",
            "tokens of a tool's result (default: as a user's turn)",
        ),
    ),
)

_LENGTHS = Group(
    "load: how long they are (one source)",
    "workload",
    (
        Flag("--random-input-len", token_count, "TOKENS", "prompt length (default: 1024)"),
        Flag("--random-output-len", token_count, "TOKENS", "output length (default: 128)"),
        Flag(
            "--random-range-ratio",
            real,
            "R",
            "lengths uniform within a share R of these, 0 <= R < 1 (default: 0)",
        ),
        Flag(
            "--random-prefix-len",
            token_count,
            "TOKENS",
            "shared prefix before each prompt (default: 0)",
        ),
        Flag(
            "--random-num-prefixes",
            token_count,
            "N",
            "different prefixes, one of them before each prompt (default: 1)",
        ),
        Flag(
            "--random-prompts-per-prefix",
            token_count,
            "N",
            "different prompts per prefix, asked again and again (default: all new)",
        ),
        Flag(
            "--random-prompt-order",
            str,
            "NAME",
            "which of them is next: random, or cyclic, each in turn (default: random)",
        ),
        Flag(
            "--avg-input-length",
            real,
            "TOKENS",
            "mean of log-normal prompt lengths (default: not log-normal)",
        ),
        Flag(
            "--max-input-length",
            token_count,
            "TOKENS",
            "longest prompt drawn (log-normal) or kept from --trace (default: no limit)",
        ),
        Flag(
            "--avg-output-length",
            real,
            "TOKENS",
            "mean of log-normal output lengths (default: not log-normal)",
        ),
        Flag(
            "--max-output-length",
            token_count,
            "TOKENS",
            "longest output drawn (log-normal) or kept from --trace (default: no limit)",
        ),
        Flag(
            "--trace",
            str,
            "FILE",
            "arrival times and lengths: a file or the name of a shipped trace",
        ),
        Flag(
            "--trace-format",
            str,
            "NAME",
            "auto, azure, mooncake, burstgpt, sharegpt, servegen, vidur or vllm-bench "
            "(default: auto)",
        ),
        Flag(
            "--trace-block-size",
            token_count,
            "TOKENS",
            "tokens that a hash id of the trace stands for (default: 512)",
        ),
        Flag("--trace-speedup", real, "FACTOR", "divide the trace's times by this (default: 1)"),
        Flag(
            "--lengths-from",
            str,
            "FILE",
            "trace whose lengths are drawn at random; times come from --arrival-rate",
        ),
    ),
)

_PRICING = Group(
    "prices",
    "pricing",
    (
        Flag(
            "--price-tier",
            str,
            "NAME",
            "price of the accelerator's entry: on_demand, reserved, spot, rental, neocloud_owned, "
            "hyperscaler_owned or amortised (default: the first of these that it has)",
        ),
        Flag(
            "--price-per-hour",
            real,
            "USD",
            "US dollars per accelerator and hour (default: the entry's)",
            field="price_per_hour_usd",
        ),
    ),
)

_RESULTS = Group(
    "results",
    "command",
    (
        Flag("--output", str, "FILE.json", "result, with the keys of vllm bench serve"),
        Switch("--save-detailed", "with per-request arrays in --output"),
        Flag("--requests-output", str, "FILE", "one row per request: .parquet or .csv"),
        Flag("--steps-output", str, "FILE", "one row per engine step: .parquet or .csv"),
        Flag(
            "--decisions-output",
            str,
            "FILE.jsonl",
            "every scheduling decision; slow; several engines: FILE.engine0.jsonl, ...",
        ),
        Flag(
            "--metric-percentiles",
            percentiles,
            "P,...",
            "percentiles of latencies (default: 50,90,99)",
            section="measurement",
        ),
        Flag(
            "--goodput",
            str,
            "NAME:MS",
            "objectives in ms: ttft:500 tpot:50 e2el:9000 (default: none)",
            section="measurement",
            nargs="+",
        ),
        Flag(
            "--fail-on",
            str,
            "CONDITION",
            "exit with code 3 if it holds: 'p99_ttft_ms>500'; repeatable; > >= < <=",
            action="append",
        ),
        Switch("--quiet", "print nothing but errors and warnings"),
        Switch("--no-progress", "no progress bar (there is none outside a terminal)"),
    ),
)

_GENERAL = Group(
    "general",
    "command",
    (
        Flag("--seed", whole_number, "N", "seed of everything random (default: 0)", section=""),
        Switch("--traceback", "show where an internal error happened"),
        Switch("--version", "print the version and exit"),
    ),
)

GROUPS = (
    WHAT_RUNS,
    _DISAGGREGATION,
    ENGINE,
    _FLEET,
    FRONT_END,
    PERFORMANCE,
    _LOAD,
    _SESSIONS,
    _LENGTHS,
    _PRICING,
    _RESULTS,
    _GENERAL,
)


def build_run_parser(prog: str) -> Parser:
    """Return the parser of ``run``, which is also the one of the bare program."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [run] --model NAME --xpu NAME [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        add_help=False,
    )
    for group in GROUPS:
        titled = parser.add_argument_group(group.title)
        for flag in group.flags:
            flag.add_to(titled, group.section)
    titled.add_argument("-h", "--help", action="help", help="print this help and exit")
    return parser
