"""The flags of ``run`` that describe the load: arrivals, sessions, lengths."""

from __future__ import annotations

from llm_inference_simulator.cli.arguments import (
    rate_schedule,
    rate_stages,
    real,
    token_count,
)
from llm_inference_simulator.cli.flags import Flag, Group

LOAD = Group(
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


SESSIONS = Group(
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


LENGTHS = Group(
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
