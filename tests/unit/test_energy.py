"""Joules and dollars: worked by hand, bounded always, null with a reason where unknown."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.catalog.xpu_spec import PRICE_TIERS
from llm_inference_simulator.config import PricingConfig
from llm_inference_simulator.energy import (
    TIER_ORDER,
    AcceleratorEconomics,
    HourlyPrice,
    PoolUse,
    economics_of,
    energy_and_cost,
    resolve_price,
)
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.metrics import REJECTED
from tests.fabricate import columns, engine, result

S = 1_000_000_000
PRICE = HourlyPrice(usd_per_hour=3.6, tier="rental", source="a list", date="2026-01")
KNOWN = AcceleratorEconomics(xpu_name="mine", idle_power_w=100.0, tdp_w=500.0, price=PRICE)
PEAKS = {"peak_flops": 1e12, "peak_bandwidth": 1e9}


def test_energy_and_cost_by_hand() -> None:
    requests = columns(
        arrival_ns=[0, 0, 0],
        first_token_ns=[S, S, -1],
        finished_ns=[10 * S, 2 * S, 2 * S],
        prompt_tokens=[300, 100, 7000],
        output_tokens=[60, 40, 0],
        status=[1, 1, REJECTED],
    )
    outcome = result(
        requests,
        config={"cluster": {"tensor_parallel_size": 2, "data_parallel_size": 2}},
        # 4 s busy: 1 s worth of operations, 2 s worth of bytes, so half utilised by memory.
        engines=[engine(busy_ns=4 * S, operations=1e12, bytes=2e9), engine(busy_ns=0)],
        pool={**PEAKS, "economics": KNOWN, "tensor_parallel_size": 2},
    ).summary()
    # First engine 6 s at 100 W and 4 s at 300 W, second 10 s at 100 W, two accelerators each.
    assert outcome["energy_joules"] == pytest.approx(2 * (600 + 1200) + 2 * 1000)
    assert outcome["joules_per_output_token"] == pytest.approx(56.0)
    # 4 accelerators for 10 s at a tenth of a cent a second.
    assert outcome["cost_usd"] == pytest.approx(0.04)
    assert outcome["per_million_output_tokens_usd"] == pytest.approx(400.0)
    assert outcome["per_million_input_tokens_usd"] == pytest.approx(100.0)
    assert outcome["energy_and_cost"]["mean_power_w"] == pytest.approx(140.0)
    assert outcome["energy_and_cost"]["notes"] == []


@given(
    st.floats(0, 400),
    st.floats(0, 1000),
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 1e15), st.floats(0, 1e12)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 8),
)
def test_energy_lies_between_idle_and_thermal_design_power(
    idle_w: float, above_w: float, work: list[tuple[float, float, float]], per_engine: int
) -> None:
    engines = [engine(busy_ns=int(s * S), operations=ops, bytes=moved) for s, ops, moved in work]
    accelerator = AcceleratorEconomics(xpu_name="mine", idle_power_w=idle_w, tdp_w=idle_w + above_w)

    def joules(totals: list[Any]) -> float:
        found = energy_and_cost(
            [PoolUse(accelerator=accelerator, engines=totals, xpus_per_engine=per_engine, **PEAKS)],
            span_s=100.0,
            input_tokens=1,
            output_tokens=1,
        )["energy_joules"]
        assert isinstance(found, float)
        return found

    unknown = any(e.busy_ns and not e.operations and not e.bytes for e in engines)
    if unknown:
        engines = [engine(busy_ns=0)]
    total, accelerator_seconds = joules(engines), per_engine * len(engines) * 100.0
    assert total >= accelerator_seconds * idle_w * (1 - 1e-12)
    assert total <= accelerator_seconds * (idle_w + above_w) * (1 + 1e-12)
    # More traffic in the same time never draws less.
    harder = [
        engine(busy_ns=e.busy_ns, operations=e.operations, bytes=2 * e.bytes) for e in engines
    ]
    assert joules(harder) >= total


@pytest.mark.parametrize(
    ("lacking", "peaks", "engines", "reason"),
    [
        ({"idle_power_w": None}, PEAKS, [engine(operations=1.0)], "mine has no idle_power_w"),
        (
            {"idle_power_w": None, "tdp_w": None},
            PEAKS,
            [engine(operations=1.0)],
            "no idle_power_w and no tdp_w",
        ),
        ({}, PEAKS | {"peak_flops": None}, [engine(operations=1.0)], "no peak operations"),
        ({}, PEAKS, [engine()], "counts no operations"),
        ({"price": None}, PEAKS, [engine(operations=1.0)], "--price-per-hour"),
    ],
)
def test_what_is_unknown_is_null_with_one_note(
    lacking: dict[str, Any], peaks: dict[str, Any], engines: list[Any], reason: str
) -> None:
    found = energy_and_cost(
        [
            PoolUse(
                accelerator=dataclasses.replace(KNOWN, **lacking),
                engines=engines,
                xpus_per_engine=1,
                **peaks,
            )
        ],
        span_s=10.0,
        input_tokens=10,
        output_tokens=10,
    )
    (note,) = found["energy_and_cost"]["notes"]
    assert reason in note
    keys = (
        ["cost_usd", "per_million_output_tokens_usd", "per_million_input_tokens_usd"]
        if "price" in lacking
        else ["energy_joules", "joules_per_output_token"]
    )
    assert all(found[key] is None for key in keys)


def test_a_run_without_answers_has_no_price_per_token() -> None:
    nothing = columns(arrival_ns=[0], finished_ns=[S], status=[REJECTED], output_tokens=[0])
    summary = result(nothing, pool={**PEAKS, "economics": KNOWN}).summary()
    assert summary["cost_usd"] == pytest.approx(0.001)
    assert summary["per_million_output_tokens_usd"] is None


def test_the_price_is_the_tier_asked_for_or_the_first_of_the_order() -> None:
    b200 = load_xpu("b200-sxm")
    price = resolve_price(b200, PricingConfig())
    assert price is not None
    assert (price.tier, price.usd_per_hour) == ("on_demand", 6.69)  # the first of two
    price = resolve_price(b200, PricingConfig(price_tier="neocloud_owned"))
    assert price is not None
    assert price.usd_per_hour == 2.34
    price = resolve_price(b200, PricingConfig(price_per_hour_usd=0.0))
    assert price is not None
    assert (price.tier, price.usd_per_hour) == (None, 0.0)
    assert set(TIER_ORDER) == set(PRICE_TIERS)


def test_a_tier_that_the_entry_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="h100-sxm has prices for hyperscaler_owned, neo"):
        resolve_price(load_xpu("h100-sxm"), PricingConfig(price_tier="spot"))
    with pytest.raises(ConfigError, match="did you mean 'spot'"):
        resolve_price(load_xpu("h100-sxm"), PricingConfig(price_tier="spott"))
    with pytest.raises(ConfigError, match="has no prices"):
        resolve_price(load_xpu("h100-pcie"), PricingConfig(price_tier="spot"))


def test_idle_power_of_the_catalogue_is_below_tdp() -> None:
    for name in ("h100-sxm", "h100-pcie", "h200-sxm", "a100-80-sxm", "l40s"):
        economics = economics_of(load_xpu(name), PricingConfig())
        assert economics.idle_power_w is not None
        assert economics.tdp_w is not None
        assert 0.05 * economics.tdp_w < economics.idle_power_w < 0.3 * economics.tdp_w
