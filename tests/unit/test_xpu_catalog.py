"""The shipped accelerators and the reader of users' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_inference_simulator.catalog.xpu_spec import FIGURES, XpuSpec
from llm_inference_simulator.catalog.xpus import list_xpus, load_xpu, read_xpu
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models.hardware import group_bandwidth

SHIPPED = list_xpus()
WITH_PEAKS = [spec for spec in SHIPPED if spec.has_peaks]


def entry() -> dict[str, Any]:
    """A small valid file."""
    required = {key: 0.5 for key, figure in FIGURES.items() if figure.required or figure.peak}
    figures = {**required, "pcie_gb_per_s": 32}
    return {
        "name": "mine",
        "description": "My accelerator",
        "vendor": "Me",
        "figures": {key: {"value": v, "source": "measured"} for key, v in figures.items()},
    }


def write(tmp_path: Path, data: dict[str, Any]) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_every_figure_has_a_source(spec: XpuSpec) -> None:
    for key, figure in FIGURES.items():
        value = getattr(spec, figure.field)
        absent = value is None or (key == "link_domain_size" and spec.link_bytes_per_s is None)
        assert absent or spec.sources[key].strip(), key
    for price in spec.prices:
        assert price.source
        assert price.date


@pytest.mark.parametrize("spec", WITH_PEAKS, ids=lambda spec: spec.name)
def test_figures_are_dense_per_direction_and_plausible(spec: XpuSpec) -> None:
    assert spec.bf16_flops is not None
    assert spec.memory_bytes_per_s is not None
    # A sparse figure would be four times BF16 in FP8, and a bidirectional link beyond 900 GB/s.
    assert spec.fp8_flops is None or spec.fp8_flops <= 2.1 * spec.bf16_flops
    assert spec.link_bytes_per_s is None or spec.link_bytes_per_s <= 900e9
    # GB as sold is 1e9 bytes on paper, and 2^30 less a reserve in many parts.
    assert 0.85 < spec.usable_memory_bytes / spec.memory_bytes < 1.075
    assert spec.memory_bytes_per_s > 2e11


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("h100", "h100-sxm"),
        ("A100", "a100-80-sxm"),
        ("a100-80gb", "a100-80-sxm"),
        ("h200", "h200-sxm"),
        ("b200", "b200-sxm"),
        ("l40s", "l40s"),
        ("mi300x", "mi300x"),
        ("rtx4090", "rtx-4090"),
        ("dgx-spark", "gb10"),
        ("GB10", "gb10"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert load_xpu(alias).name == name


def test_no_name_stands_for_two_accelerators() -> None:
    names = [name for spec in SHIPPED for name in {spec.name, *spec.aliases}]
    assert len(names) == len(set(names))


def test_files_are_named_after_their_accelerator() -> None:
    for spec in SHIPPED:
        assert load_xpu(spec.name) is spec


def test_known_traps() -> None:
    h100 = load_xpu("h100")
    assert h100.peak_flops("bfloat16") == 989.4e12
    assert h100.peak_flops("fp8") == 1978.9e12
    assert h100.peak_flops("fp4") is None
    assert h100.link_bytes_per_s == 450e9
    assert load_xpu("l40s").peak_flops("fp8") == 733e12
    assert load_xpu("rtx-4090").bf16_flops == 165.2e12  # FP32 accumulation
    assert load_xpu("a100").peak_flops("fp8") is None


def test_measured_fractions() -> None:
    gb10 = load_xpu("gb10")
    assert gb10.bf16_flops is not None
    assert gb10.compute_efficiency is not None
    assert gb10.bf16_flops * gb10.compute_efficiency == pytest.approx(95.6e12, rel=1e-3)
    assert gb10.memory_efficiency == 0.61
    mi355x = load_xpu("mi355x")
    fraction = mi355x.compute_efficiency_of("fp8")
    assert fraction is not None
    assert fraction * 5033 == pytest.approx(3567, rel=1e-3)
    assert load_xpu("mi300x").compute_efficiency_of("fp8") == pytest.approx(708 / 1307.4, rel=1e-3)


def test_accelerators_without_a_link_talk_over_pcie() -> None:
    assert group_bandwidth(load_xpu("l40s"), 2) == 32e9
    assert group_bandwidth(load_xpu("h100"), 2) == 450e9


def test_own_file_loads_with_units_converted(tmp_path: Path) -> None:
    spec = load_xpu(str(write(tmp_path, entry())))
    assert (spec.name, spec.bf16_flops, spec.usable_memory_bytes) == ("mine", 0.5e12, 2**29)
    assert spec.prices == ()


def set_value(key: str, value: Any) -> dict[str, Any]:
    data = entry()
    data["figures"][key] = {"value": value, "source": "x"}
    return data


@pytest.mark.parametrize("value", [0, -3, float("nan"), float("inf"), "989 TFLOPS", True, None])
def test_impossible_values_are_refused_by_key(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match="figures: bf16_tflops="):
        read_xpu(write(tmp_path, set_value("bf16_tflops", value)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("memory_efficiency", 80, "must be at most 1"),
        ("kernel_latency_us", -1, "must not be negative"),
        ("link_domain_size", 2.5, "must be a whole number"),
        ("bf16_tflop", 1, "did you mean 'bf16_tflops'?"),
    ],
)
def test_wrong_figures_are_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_xpu(write(tmp_path, set_value(key, value)))
    assert message in str(caught.value)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    data = entry()
    del data["figures"]["memory_gb"]
    with pytest.raises(ConfigError, match="key 'memory_gb' is missing"):
        read_xpu(write(tmp_path, data))
    data = entry()
    del data["figures"]["bf16_tflops"]["source"]
    with pytest.raises(ConfigError, match="bf16_tflops: key 'source' is missing"):
        read_xpu(write(tmp_path, data))
    data = entry()
    del data["figures"]["pcie_gb_per_s"]
    with pytest.raises(ConfigError, match="link_gb_per_s or pcie_gb_per_s"):
        read_xpu(write(tmp_path, data))
    with pytest.raises(ConfigError, match="unknown key 'nmae'; did you mean 'name'"):
        read_xpu(write(tmp_path, {**entry(), "nmae": "x"}))
    price = {"tier": "rented", "usd_per_hour": 1.0, "source": "x", "date": "2026"}
    with pytest.raises(ConfigError, match="unknown tier 'rented'; did you mean 'rental'"):
        read_xpu(write(tmp_path, {**entry(), "prices": [price]}))


def test_figures_need_a_source_and_lists_are_not_null(tmp_path: Path) -> None:
    data = entry()
    data["figures"]["tdp_w"] = 700
    with pytest.raises(ConfigError, match="tdp_w=700 must be written as"):
        read_xpu(write(tmp_path, data))
    with pytest.raises(ConfigError, match="aliases is empty"):
        read_xpu(write(tmp_path, {**entry(), "aliases": None}))


def test_usable_memory_in_the_wrong_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="usable_memory_gib=81559 exceeds"):
        read_xpu(write(tmp_path, set_value("usable_memory_gib", 81_559)))


def test_unknown_name_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown accelerator 'h10'; did you mean 'h100'"):
        load_xpu("h10")
    with pytest.raises(ConfigError, match="does not exist"):
        load_xpu(str(tmp_path / "none.yaml"))


def test_the_guide_lists_every_figure() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "add_an_accelerator.md"
    text = guide.read_text()
    for key, figure in FIGURES.items():
        assert f"| `{key}` | {figure.meaning} |" in text


def test_every_alias_finds_its_accelerator() -> None:
    for spec in SHIPPED:
        assert all(load_xpu(alias) is spec for alias in spec.aliases)
