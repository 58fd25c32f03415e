"""What candidates cost, by each objective, and what can be said of it before simulating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_inference_simulator.catalog import XpuSpec, load_xpu
from llm_inference_simulator.config import PricingConfig
from llm_inference_simulator.energy import TIER_ORDER, economics_of
from llm_inference_simulator.plan.candidates import Candidate
from llm_inference_simulator.plan.request import Objective
from llm_inference_simulator.workload import Workload


@dataclass(frozen=True, slots=True)
class Prices:
    """Hourly price and idle power by accelerator."""

    usd_per_hour: Mapping[str, float | None]
    idle_power_w: Mapping[str, float | None]
    tdp_w: Mapping[str, float | None]
    sections: Mapping[str, Mapping[str, Any]]
    """The ``pricing`` section of a configuration with each accelerator."""
    warnings: tuple[str, ...]

    def refusal(self, xpu: str, objective: Objective) -> str | None:
        """Why an accelerator cannot be compared by an objective, or None."""
        if objective == "cost" and self.usd_per_hour[xpu] is None:
            return f"{xpu} has no price: give --price-per-hour, or choose by --objective xpus"
        if objective == "energy" and self.idle_power_w[xpu] is None:
            return f"{xpu} has no idle_power_w, so its energy is unknown: leave it out of --xpus"
        if objective == "energy" and self.tdp_w[xpu] is None:
            return f"{xpu} has no tdp_w, so its energy is unknown: leave it out of --xpus"
        return None

    def least(self, candidate: Candidate, objective: Objective, workload: Workload) -> float:
        """What the objective's value is at least: exact but for energy (joules a token)."""
        xpu, n_xpus = candidate.family.xpu, candidate.n_xpus
        if objective == "xpus":
            return float(n_xpus)
        if objective == "cost":
            return n_xpus * (self.usd_per_hour[xpu] or 0.0)
        arrivals_s = float(workload.arrival_ns[-1] - workload.arrival_ns[0]) / 1e9
        tokens = max(1, int(workload.output_tokens.sum()))
        return n_xpus * (self.idle_power_w[xpu] or 0.0) * arrivals_s / tokens


def prices_of(xpus: Sequence[str], pricing: Mapping[str, Any]) -> Prices:
    """Prices of one tier where all accelerators have one in common.

    Comparing one's rental with another's list price would choose the tier, not the accelerator.
    """
    specs = {name: load_xpu(name) for name in xpus}
    chosen = dict(pricing)
    if not chosen:
        common = _common_tier(list(specs.values()))
        chosen = {} if common is None else {"price_tier": common}
    # An accelerator without any price has none of that tier either, and is no error for it.
    sections = {name: chosen if spec.prices or pricing else {} for name, spec in specs.items()}
    economics = {
        name: economics_of(spec, PricingConfig.parse(sections[name], source=""))
        for name, spec in specs.items()
    }
    priced = {name: each.price for name, each in economics.items()}
    tiers = {price.tier for price in priced.values() if price is not None}
    warnings = []
    if len(tiers) > 1:
        listed = ", ".join(f"{name} {price.tier}" for name, price in priced.items() if price)
        warnings.append(f"prices are of different tiers ({listed}): give --price-tier")
    return Prices(
        usd_per_hour={n: None if p is None else p.usd_per_hour for n, p in priced.items()},
        idle_power_w={name: each.idle_power_w for name, each in economics.items()},
        tdp_w={name: each.tdp_w for name, each in economics.items()},
        sections=sections,
        warnings=tuple(warnings),
    )


def _common_tier(specs: Sequence[XpuSpec]) -> str | None:
    priced = [{price.tier for price in spec.prices} for spec in specs if spec.prices]
    return next((tier for tier in TIER_ORDER if all(tier in own for own in priced)), None)
