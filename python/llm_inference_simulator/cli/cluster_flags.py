"""The flags of ``run`` that say what runs, on what, and how the cluster changes."""

from __future__ import annotations

from llm_inference_simulator.cli.arguments import (
    real,
    whole_number,
)
from llm_inference_simulator.cli.flags import Flag, Group, Switch

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


DISAGGREGATION = Group(
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


FLEET = Group(
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
