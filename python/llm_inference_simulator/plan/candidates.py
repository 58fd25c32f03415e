"""The space of a plan: which clusters are possible, and how each is written as a configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llm_inference_simulator.capacity import valid_tensor_parallel_sizes
from llm_inference_simulator.catalog import ModelSpec
from llm_inference_simulator.plan.request import NODE_SIZE, TRANSFER_GB_S, PlanRequest

Role = Literal["aggregated", "prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How an engine is spread over accelerators, and its settings."""

    role: Role
    tensor_parallel_size: int
    pipeline_parallel_size: int = 1
    settings: tuple[tuple[str, Any], ...] = ()
    """Engine settings beyond the base's."""

    @property
    def xpus(self) -> int:
        """Accelerators of an engine."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def words(self) -> str:
        """As in "TP 4 x PP 2"."""
        pipeline = self.pipeline_parallel_size
        return f"TP {self.tensor_parallel_size}" + (f" x PP {pipeline}" if pipeline > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Clusters that differ in their numbers of engines alone."""

    xpu: str
    layouts: tuple[Layout, ...]
    """One aggregated, or one for prefill and one for decode."""

    @property
    def mode(self) -> str:
        """Aggregated or disaggregated."""
        return "aggregated" if len(self.layouts) == 1 else "disaggregated"

    def candidate(self, engines: Sequence[int]) -> Candidate:
        """The member with so many engines of each layout."""
        return Candidate(family=self, engines=tuple(engines))

    @property
    def words(self) -> str:
        """As in "h100-sxm, TP 4, max_num_batched_tokens 2048"."""
        settings = dict(pair for layout in self.layouts for pair in layout.settings)
        layouts = " + ".join(
            layout.words if layout.role == "aggregated" else f"{layout.role} {layout.words}"
            for layout in self.layouts
        )
        return ", ".join([self.xpu, layouts, *(f"{k} {v}" for k, v in settings.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A cluster."""

    family: Family
    engines: tuple[int, ...]
    """Of each layout."""

    @property
    def pools(self) -> Iterator[tuple[Layout, int]]:
        """Layouts and their numbers of engines."""
        return zip(self.family.layouts, self.engines, strict=True)

    @property
    def n_xpus(self) -> int:
        """Accelerators of all engines."""
        return sum(count * layout.xpus for layout, count in self.pools)

    @property
    def count_words(self) -> str:
        """How the number of accelerators comes about, as in "20 = 5 engines x TP 4"."""
        parts = []
        for layout, count in self.pools:
            kind = "" if layout.role == "aggregated" else f"{layout.role} "
            parts.append(f"{count} {kind}{'engine' if count == 1 else 'engines'} x {layout.words}")
        return f"{self.n_xpus} = {' + '.join(parts)}"

    def parameters(self) -> dict[str, Any]:
        """What tells candidates apart, by flat names."""
        flat: dict[str, Any] = {
            "xpu": self.family.xpu,
            "n_xpus": self.n_xpus,
            "mode": self.family.mode,
        }
        for layout, count in self.pools:
            prefix = "" if layout.role == "aggregated" else f"{layout.role}_"
            flat[f"{prefix}engines"] = count
            flat[f"{prefix}tensor_parallel_size"] = layout.tensor_parallel_size
            flat[f"{prefix}pipeline_parallel_size"] = layout.pipeline_parallel_size
            flat |= {f"{prefix}{name}": value for name, value in layout.settings}
        return flat

    def config_data(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The candidate as plain configuration over ``base``."""
        cluster = {"router": "least_outstanding", **base.get("cluster", {})}
        pools = [_pool(layout, count, base) for layout, count in self.pools]
        data = {key: value for key, value in base.items() if key != "transfer"}
        data |= {"xpu": self.family.xpu, "cluster": {**cluster, "pools": pools}}
        if self.family.mode == "disaggregated":
            data["transfer"] = {"bandwidth_gb_s": TRANSFER_GB_S, **base.get("transfer", {})}
        return data


def _pool(layout: Layout, count: int, base: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**base.get("engine", {}), **dict(layout.settings)}
    return {
        "name": "engines" if layout.role == "aggregated" else layout.role,
        "role": layout.role,
        "n_engines": count,
        "tensor_parallel_size": layout.tensor_parallel_size,
        "pipeline_parallel_size": layout.pipeline_parallel_size,
        **({"engine": settings} if settings else {}),
    }


def families(request: PlanRequest, model: ModelSpec) -> list[Family]:
    """All families of a request, in a fixed order."""
    found = []
    for xpu in request.xpus:
        if "aggregated" in request.modes:
            layouts = _layouts(request, model, "aggregated")
            found += [Family(xpu=xpu, layouts=(layout,)) for layout in layouts]
        if "disaggregated" in request.modes:
            prefill = [
                # A prefill engine's steps are prompts alone: it gets the larger budgets only.
                layout
                for layout in _layouts(request, model, "prefill")
                if layout.pipeline_parallel_size == 1
            ]
            decode = [
                layout
                for layout in _layouts(request, model, "decode")
                if layout.pipeline_parallel_size == 1
            ]
            found += [
                Family(xpu=xpu, layouts=pair)
                for pair in itertools.product(prefill, decode)
                if len({layout.settings for layout in pair}) == 1
            ]
    return found


def _layouts(request: PlanRequest, model: ModelSpec, role: Role) -> list[Layout]:
    expert_parallel = request.base.get("engine", {}).get("enable_expert_parallel")
    choices = dict(request.settings)
    if model.moe is not None and expert_parallel is None:
        choices = {"enable_expert_parallel": (False, True), **choices}
    names = list(choices)
    return [
        Layout(
            role=role,
            tensor_parallel_size=tensor,
            pipeline_parallel_size=pipeline,
            settings=tuple(zip(names, values, strict=True)),
        )
        for tensor in request.tensor_parallel_sizes
        for pipeline in request.pipeline_parallel_sizes
        for values in itertools.product(*choices.values())
        if tensor * pipeline <= min(NODE_SIZE, request.max_xpus)
        and pipeline <= model.num_layers
        and tensor
        in valid_tensor_parallel_sizes(
            model,
            whole_experts=bool(
                dict(zip(names, values, strict=True)).get("enable_expert_parallel", expert_parallel)
            ),
        )
    ]


def members(family: Family, least: Sequence[int], max_xpus: int) -> Iterator[Candidate]:
    """Candidates of a family with at least so many engines of each layout."""
    sizes = [layout.xpus for layout in family.layouts]
    ranges = [range(low, max_xpus // size + 1) for low, size in zip(least, sizes, strict=True)]
    for engines in itertools.product(*ranges):
        candidate = family.candidate(engines)
        if candidate.n_xpus <= max_xpus:
            yield candidate


def with_layouts(family: Family, **changes: Any) -> Family:
    """The family with fields of every layout changed."""
    return replace(family, layouts=tuple(replace(x, **changes) for x in family.layouts))
