"""Energy and cost of a run, from what the engines did and what their accelerators draw and cost.

An accelerator draws its idle power while its engine has no step in flight. In a step its power
rises linearly with the utilisation of the dominant resource, from idle power at 0 to the thermal
design power (TDP) at 1:

    u        = min(1, max(operations / peak rate, bytes / peak bandwidth) / busy time)
    power(u) = idle + (TDP - idle) * u
    joules   = sum over engines of accelerators * (idle * idle time + power(u) * busy time)

Utilisation is taken over an engine's whole busy time. A run that is bound by compute in some
steps and by memory in others draws more than this, since the maximum is then taken of two sums
instead of step by step; a kernel that keeps its units busy without useful operations does too.
Host, network and cooling are not included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llm_inference_simulator.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from llm_inference_simulator.catalog import XpuSpec
    from llm_inference_simulator.config import PricingConfig

NS_PER_S = 1_000_000_000
S_PER_HOUR = 3600

TIER_ORDER = (
    "on_demand",
    "reserved",
    "spot",
    "rental",
    "neocloud_owned",
    "hyperscaler_owned",
    "amortised",
)
"""Which price counts where no tier is asked for: the first of these that the entry has."""


class EngineTotals(Protocol):
    """What energy depends on, as the core's ``EngineStats`` has it."""

    @property
    def busy_ns(self) -> int:
        """Nanoseconds in which a step was in flight."""

    @property
    def operations(self) -> float:
        """Floating-point operations of all steps per accelerator."""

    @property
    def bytes(self) -> float:
        """Memory traffic of all steps per accelerator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyPrice:
    """US dollars per accelerator and hour, and where the figure comes from."""

    usd_per_hour: float
    tier: str | None
    """None: given by the user."""
    source: str
    date: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorEconomics:
    """What an accelerator draws and costs; None where its entry doesn't say."""

    xpu_name: str
    idle_power_w: float | None = None
    tdp_w: float | None = None
    price: HourlyPrice | None = None


def economics_of(xpu: XpuSpec, pricing: PricingConfig) -> AcceleratorEconomics:
    """Power and price of ``xpu``; :class:`ConfigError` for a tier that its entry lacks."""
    return AcceleratorEconomics(
        xpu_name=xpu.name,
        idle_power_w=xpu.idle_power_w,
        tdp_w=xpu.tdp_w,
        price=resolve_price(xpu, pricing),
    )


def resolve_price(xpu: XpuSpec, pricing: PricingConfig) -> HourlyPrice | None:
    """Return the price that counts; None where the entry has none and none was given.

    Of several prices in a tier the first of the entry counts. Raises :class:`ConfigError` for a
    tier that the entry lacks.
    """
    if pricing.price_per_hour_usd is not None:
        return HourlyPrice(
            usd_per_hour=pricing.price_per_hour_usd, tier=None, source="given", date=None
        )
    tiers: set[str] = {price.tier for price in xpu.prices}
    wanted: Sequence[str] = TIER_ORDER
    if pricing.price_tier is not None:
        if pricing.price_tier not in tiers:
            raise ConfigError(_no_such_tier(xpu, pricing.price_tier, tiers))
        wanted = (pricing.price_tier,)
    for tier in wanted:
        for price in xpu.prices:
            if price.tier == tier:
                return HourlyPrice(
                    usd_per_hour=price.usd_per_hour,
                    tier=price.tier,
                    source=price.source,
                    date=price.date,
                )
    return None


def _no_such_tier(xpu: XpuSpec, wanted: str, tiers: set[str]) -> str:
    if wanted not in TIER_ORDER:
        return "price_tier: " + unknown_name(
            "tier", wanted, TIER_ORDER, remedy=f"(known: {', '.join(TIER_ORDER)})"
        )
    has = f"has prices for {', '.join(sorted(tiers))}" if tiers else "has no prices"
    return (
        f"price_tier={wanted}: {xpu.name} {has}: name another tier, or give price_per_hour_usd "
        "(--price-per-hour)"
    )


def engine_joules(
    engine: EngineTotals,
    span_s: float,
    *,
    idle_power_w: float,
    tdp_w: float,
    peak_flops: float,
    peak_bandwidth: float,
) -> float:
    """Joules of one accelerator of ``engine`` over ``span_s`` seconds (formula: this module's).

    ``peak_flops`` and ``peak_bandwidth`` are per second and accelerator.
    """
    busy_s = engine.busy_ns / NS_PER_S
    joules = idle_power_w * max(span_s, busy_s)
    if busy_s > 0:
        used_s = max(engine.operations / peak_flops, engine.bytes / peak_bandwidth)
        # A thermal limit below the idle reading would make work give energy back.
        joules += max(tdp_w - idle_power_w, 0.0) * min(used_s, busy_s)
    return joules


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """Equal engines, what they did, and what their accelerators draw and cost."""

    accelerator: AcceleratorEconomics
    engines: Sequence[EngineTotals]
    xpus_per_engine: int
    peak_flops: float | None
    """Per second and accelerator, as the bandwidth; None: unknown."""
    peak_bandwidth: float | None

    @property
    def n_xpus(self) -> int:
        """Accelerators of all engines."""
        return self.xpus_per_engine * len(self.engines)


def energy_and_cost(
    pools: Sequence[PoolUse], *, span_s: float, input_tokens: int, output_tokens: int
) -> dict[str, Any]:
    """Energy and cost keys of the result; None where unknown, with the reason in ``notes``.

    ``span_s`` is the run's, warm-up included; the tokens are those of the requests completed in it.
    The accelerators of all engines are paid for over the whole span. ``per_million_…_usd`` is the
    whole cost over the tokens of that kind, so the two figures are alternatives, not parts of a
    sum. What is unknown of one pool is unknown of the whole.
    """
    notes: list[str] = []
    joules = _sum_known([_joules(pool, span_s, notes) for pool in pools])
    cost = _sum_known([_cost(pool, span_s, notes) for pool in pools])
    n_xpus = sum(pool.n_xpus for pool in pools)
    # Pools of unlike accelerators have no one power and price.
    one = pools[0].accelerator if len({pool.accelerator for pool in pools}) == 1 else None
    price = None if one is None else one.price
    return {
        "energy_joules": joules,
        "joules_per_output_token": _per(joules, output_tokens),
        "cost_usd": cost,
        "per_million_output_tokens_usd": _per(cost, output_tokens, 1e6),
        "per_million_input_tokens_usd": _per(cost, input_tokens, 1e6),
        "energy_and_cost": {
            "xpus": n_xpus,
            "span_s": span_s,
            "mean_power_w": joules / (n_xpus * span_s) if joules and span_s else None,
            "idle_power_w": None if one is None else one.idle_power_w,
            "tdp_w": None if one is None else one.tdp_w,
            "price_per_hour_usd": None if price is None else price.usd_per_hour,
            "price_tier": None if price is None else price.tier,
            "price_source": None if price is None else price.source,
            "price_date": None if price is None else price.date,
            "notes": list(dict.fromkeys(notes)),
        },
    }


def _joules(pool: PoolUse, span_s: float, notes: list[str]) -> float | None:
    idle_w, tdp_w = pool.accelerator.idle_power_w, pool.accelerator.tdp_w
    missing = _energy_needs(pool.accelerator, pool.engines, pool.peak_flops, pool.peak_bandwidth)
    if missing:
        notes.append(f"energy is unknown: {missing}")
        return None
    assert idle_w is not None and tdp_w is not None  # noqa: PT018
    assert pool.peak_flops is not None and pool.peak_bandwidth is not None  # noqa: PT018
    return pool.xpus_per_engine * sum(
        engine_joules(
            engine,
            span_s,
            idle_power_w=idle_w,
            tdp_w=tdp_w,
            peak_flops=pool.peak_flops,
            peak_bandwidth=pool.peak_bandwidth,
        )
        for engine in pool.engines
    )


def _cost(pool: PoolUse, span_s: float, notes: list[str]) -> float | None:
    if pool.accelerator.price is None:
        name = pool.accelerator.xpu_name
        notes.append(f"cost is unknown: {name} has no price; give --price-per-hour")
        return None
    return pool.accelerator.price.usd_per_hour * pool.n_xpus * span_s / S_PER_HOUR


def _sum_known(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _energy_needs(
    accelerator: AcceleratorEconomics,
    engines: Sequence[EngineTotals],
    peak_flops: float | None,
    peak_bandwidth: float | None,
) -> str | None:
    """Say what is missing for an energy, or None."""
    absent = [
        name
        for name, value in (
            ("idle_power_w", accelerator.idle_power_w),
            ("tdp_w", accelerator.tdp_w),
        )
        if value is None
    ]
    if absent:
        return f"{accelerator.xpu_name} has no {' and no '.join(absent)}"
    if not peak_flops or not peak_bandwidth:
        return "the performance model has no peak operations and bandwidth"
    if any(engine.busy_ns and not engine.operations and not engine.bytes for engine in engines):
        return "the performance model counts no operations and bytes"
    return None


def _per(amount: float | None, tokens: int, scale: float = 1.0) -> float | None:
    return None if amount is None or not tokens else amount * scale / tokens
