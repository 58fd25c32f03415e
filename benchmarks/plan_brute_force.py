"""Whether a plan names the winner of simulating everything.

Llama 3.1 70B with the lengths of the Azure conversation trace at 20 requests/s, TTFT <= 1 s and
TPOT <= 50 ms for 99 % of the requests, over H100, H200, MI300X and L40S, aggregated and
disaggregated. Every candidate of up to ``--max-xpus`` accelerators is simulated, then the plan is
made; both times and both winners are printed: ``python benchmarks/plan_brute_force.py``.
"""

from __future__ import annotations

import argparse
import time

from llm_inference_simulator.plan.candidates import families, members
from llm_inference_simulator.plan.judge import Judge
from llm_inference_simulator.plan.prices import prices_of
from llm_inference_simulator.plan.request import PlanRequest
from llm_inference_simulator.plan.search import best_of, cheapest
from llm_inference_simulator.shared_inputs import SharedInputs

XPUS = ("h100", "h200", "mi300x", "l40s")


def main() -> None:
    """Compare a plan with brute force."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-xpus", type=int, default=12)
    parser.add_argument("--rate", type=float, default=20.0)
    arguments = parser.parse_args()
    request = PlanRequest(
        base={
            "model": "llama-3.1-70b",
            "workload": {"lengths_from": "azure-conv-2023"},
            "measurement": {"goodput": {"ttft": 1000.0, "tpot": 50.0}},
        },
        xpus=XPUS,
        request_rate=arguments.rate,
        max_xpus=arguments.max_xpus,
    )
    prices = prices_of(XPUS, {})
    started = time.perf_counter()
    judge = Judge(request, prices, SharedInputs())
    found = cheapest(judge).best
    print(
        f"plan:        {judge.simulations:,} simulations, {time.perf_counter() - started:.1f} s: "
        f"{found and found.candidate.count_words}, {found and found.candidate.family.words}"
    )
    started = time.perf_counter()
    judge = Judge(request, prices, SharedInputs())
    everything = [
        candidate
        for family in families(request, judge.inputs.model(request.base["model"]))
        for candidate in members(family, [1] * len(family.layouts), request.max_xpus)
    ]
    best = best_of(judge.trials([(each, arguments.rate) for each in everything]), judge)
    print(
        f"brute force: {judge.simulations:,} simulations, {time.perf_counter() - started:.1f} s: "
        f"{best and best.candidate.count_words}, {best and best.candidate.family.words}"
    )
    same = (found and found.candidate) == (best and best.candidate)
    print("the same winner" if same else "NOT the same winner")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
