"""Lines of vLLM as part of a configuration: under our own flags, over our configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.catalog.models import load_model
from llm_inference_simulator.catalog.xpus import load_xpu
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.vllm_words.bench import read_bench_line
from llm_inference_simulator.vllm_words.defaults import engine_defaults
from llm_inference_simulator.vllm_words.serve import LABEL, read_serve_line
from llm_inference_simulator.vllm_words.serve_flags import VLLM_VERSION
from llm_inference_simulator.vllm_words.words import REMEDY, Words

_ALTERNATIVES = (
    # When requests arrive, and how long they are: what one source says another must not.
    (
        ("workload.request_rate", "workload.burstiness"),
        ("workload.rate_stages",),
        ("workload.rate_schedule",),
    ),
    (
        (
            "workload.random_input_len",
            "workload.random_output_len",
            "workload.random_range_ratio",
            "workload.random_prefix_len",
            "workload.random_num_prefixes",
        ),
        ("workload.trace", "workload.trace_format", "workload.trace_speedup"),
        ("workload.lengths_from", "workload.trace_format"),
        ("workload.avg_input_length", "workload.avg_output_length"),
    ),
)


@dataclass(slots=True)
class Translation:
    """What one or two lines of vLLM say."""

    places: dict[str, Any]
    """Place in the configuration (``engine.max_num_seqs``) → value."""
    spellings: dict[str, str]
    """Place → whose flag set it, for messages."""
    ignored: tuple[str, ...]
    throughput_mode: bool = False
    own_router: bool = False
    """Whether something else than vLLM divides requests among its engines."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """What the lines left open and vLLM's own defaults filled in, by place."""

    def keep_beside(self, flags: Mapping[str, Any]) -> dict[str, Any]:
        """Give up the places that ``flags`` of ours take over, and return the others."""
        kept = {place: value for place, value in self.places.items() if place not in flags}
        for alternatives in _ALTERNATIVES:
            named = [group for group in alternatives if any(place in flags for place in group)]
            if named:
                own = {place for group in named for place in group}
                others = {place for group in alternatives for place in group} - own
                kept = {place: value for place, value in kept.items() if place not in others}
        self.places = kept
        return kept

    def fill_in(self, data: dict[str, Any]) -> None:
        """Complete plain configuration ``data`` as vLLM would; what it has stays as it is.

        Raises :class:`ConfigError` where the model makes a flag of the lines something that is not
        simulated.
        """
        model = load_model(str(data["model"]))
        self._check_quantization(data, model)
        self._check_shared_experts(data, model)
        cluster = _section(data, "cluster")
        if cluster.get("pools"):
            self._fill_in_pools(data, cluster["pools"], model)
            return
        if cluster.get("data_parallel_size", 1) > 1 and not self.own_router:
            self._default(data, "cluster", "router", "least_outstanding")
        ranks = cluster.get("tensor_parallel_size", 1) * cluster.get("pipeline_parallel_size", 1)
        engine = _section(data, "engine")
        for name, value in self._engine(engine, str(data["xpu"]), ranks, model).items():
            self._default(data, "engine", name, value)

    def _fill_in_pools(self, data: dict[str, Any], pools: Any, model: ModelSpec) -> None:
        """Each pool gets the defaults of its own accelerator."""
        for pool in pools if isinstance(pools, list | tuple) else ():
            if not isinstance(pool, dict):
                continue  # the configuration's validator says what is wrong
            given = {**_section(data, "engine"), **(pool.get("engine") or {})}
            xpu = pool.get("xpu") or data["xpu"]
            ranks = pool.get("tensor_parallel_size", 1) * pool.get("pipeline_parallel_size", 1)
            filled = {
                name: value
                for name, value in self._engine(given, str(xpu), ranks, model).items()
                if name not in given
            }
            pool["engine"] = {**(pool.get("engine") or {}), **filled}
            name = pool.get("name", "pool")
            self.defaults.update({f"{name}.{key}": value for key, value in filled.items()})

    def _engine(
        self, given: Mapping[str, Any], xpu: str, ranks: int, model: ModelSpec
    ) -> dict[str, Any]:
        whole = given.get("enable_chunked_prefill", True) is False
        longest = given.get("max_model_len") or model.max_position_embeddings
        return engine_defaults(
            load_xpu(xpu),
            ranks=ranks,
            throughput_mode=self.throughput_mode,
            longest_prompt=longest if whole else None,
            max_num_batched_tokens=given.get("max_num_batched_tokens"),
        )

    def _default(self, data: dict[str, Any], section: str, name: str, value: Any) -> None:
        target = _section(data, section)
        if name not in target:
            target[name] = value
            data[section] = target
            self.defaults[f"{section}.{name}"] = value

    def _check_quantization(self, data: dict[str, Any], model: ModelSpec) -> None:
        """``--quantization`` mostly names what the checkpoint is; FP8 also makes one."""
        place = "engine.quantization"
        engine = _section(data, "engine")
        method = self.places.get(place)
        if method is None or engine.get("quantization") != method:
            return
        own = None if model.quantization is None else model.quantization.method
        if own is not None and method.casefold().removesuffix("_marlin") == own:
            engine["quantization"] = None
        elif own is not None or method.casefold() != "fp8":
            says = f"the weights of {model.name} are {own or 'not quantised'}"
            raise ConfigError(
                f"{LABEL}: --quantization {method} is refused: {says}, and only fp8 is made of "
                "16-bit weights; name the quantised checkpoint's config.json with --model, or give "
                "--quantization fp8, int8 or int4"
            )

    def _check_shared_experts(self, data: dict[str, Any], model: ModelSpec) -> None:
        engines = self.places.get("cluster.data_parallel_size", 1)
        alone = not _section(data, "engine").get("enable_expert_parallel", False)
        if engines > 1 and alone and model.moe is not None:
            raise ConfigError(
                f"{LABEL}: --data-parallel-size {engines} is refused: without "
                f"--enable-expert-parallel vLLM slices the experts of {model.name} over all "
                f"engines, which is not modelled; {REMEDY}"
            )

    def provenance(self) -> dict[str, Any]:
        """For the result: what was taken, left out and filled in; no value of an ignored flag.

        Lines have secrets in them (``--api-key``), so they are not kept as they are.
        """
        return {
            "vllm_version": VLLM_VERSION,
            "taken": dict(self.places),
            "ignored": list(self.ignored),
            "defaults": dict(self.defaults),
        }


def translate(serve: str | None, bench: str | None) -> Translation:
    """Translate a line of ``vllm serve``, one of ``vllm bench serve``, or both.

    Raises :class:`ConfigError` naming the flag that is unknown, wrong or refused.
    """
    lines: list[Words] = []
    if bench is not None:
        lines.append(read_bench_line(bench))
    if serve is not None:
        lines.append(read_serve_line(serve))  # last: the server knows best which model it has
    places: dict[str, Any] = {}
    spellings: dict[str, str] = {}
    for words in lines:
        places |= words.places
        spellings |= words.spellings
    mode = places.pop("vllm.performance_mode", "balanced")
    if mode not in ("balanced", "throughput"):
        raise lines[-1].refuse(
            "--performance-mode", mode, "only balanced and throughput are simulated"
        )
    own_router = places.pop("vllm.own_router", None) is not None
    return Translation(
        places=places,
        spellings={place: flag for place, flag in spellings.items() if place in places},
        ignored=tuple(dict.fromkeys(name for words in reversed(lines) for name in words.ignored)),
        throughput_mode=mode == "throughput",
        own_router=own_router,
    )


def _section(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = data.get(name)
    return section if isinstance(section, dict) else {}
