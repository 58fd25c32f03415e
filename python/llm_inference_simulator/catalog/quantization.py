"""Reads how a checkpoint's weights are quantised, from its config.json or ModelOpt's own file."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

from llm_inference_simulator.catalog.config_keys import ConfigKeys
from llm_inference_simulator.catalog.model_spec import (
    QUANTIZED_COMPONENTS,
    QuantizationSpec,
    QuantizedFormat,
)
from llm_inference_simulator.errors import unknown_name

METHODS = ("fp8", "gptq", "awq", "compressed-tensors", "mxfp4", "modelopt", "modelopt_fp4")

# Modules that are never quantised, or are no part of the language model.
_NEVER = re.compile(
    r"lm_head|embed|norm|router|shared_expert_gate|\bgate$|gate\$|e_score|vision|visual|audio"
    r"|multi_modal|multimodal|projector|mtp|eh_proj|conv1d|indexer|^gate$"
)
_PART = re.compile(r"([a-z_]+_proj(?:_with_mqa)?|fc1|fc2|c_fc)$")
_WHOLE = {
    "attention": (
        {"q_proj", "k_proj", "v_proj", "o_proj"},
        {"qkv_proj", "o_proj"},
        {"q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
        {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
    ),
    "mlp": (
        {"gate_proj", "up_proj", "down_proj"},
        {"gate_up_proj", "down_proj"},
        {"fc1", "fc2"},
        {"c_fc", "c_proj"},
    ),
}
"""Matrices that make up a component, under the names of the different families."""
_MODULES = {
    **{f"model.layers.0.self_attn.{part}_proj": "attention" for part in "qkvo"},
    **{f"model.layers.0.mlp.{part}_proj": "mlp" for part in ("gate", "up", "down")},
    **{f"model.layers.0.mlp.experts.0.{part}_proj": "experts" for part in ("gate", "up", "down")},
    **{
        f"model.layers.0.mlp.shared_experts.{part}_proj": "shared_experts"
        for part in ("gate", "up", "down")
    },
}
"""Names that a pattern of modules is tried on."""
_LAYER = re.compile(r"layers?\\?\.(\d+)(?!\d)")


def read_quantization(
    keys: ConfigKeys, num_layers: int, moe_layers: tuple[bool, ...]
) -> QuantizationSpec:
    """Read a ``quantization_config`` section (or ModelOpt's ``quantization``)."""
    method = keys.text("quant_method")
    if method not in METHODS:
        raise keys.fail(
            unknown_name(
                "quant_method", method, METHODS, remedy=f"(understood: {', '.join(METHODS)})"
            )
        )
    ignored = _ignored_modules(keys)
    components = _quantized_components(keys, ignored, num_layers, moe_layers)
    if method == "fp8":
        return _spec(keys, "fp8", components, overhead_bits=_block_scale_bits(keys))
    if method in ("gptq", "awq"):
        return _grouped_integers(keys, method, components)
    if method == "mxfp4":
        return _spec(keys, "mxfp4", components)
    if method.startswith("modelopt"):
        return _model_opt(keys, components)
    return _compressed_tensors(keys, components)


def _spec(
    keys: ConfigKeys,
    format_: QuantizedFormat,
    components: tuple[str, ...],
    *,
    weight_only: bool = False,
    group_size: int | None = None,
    overhead_bits: float = 0.0,
) -> QuantizationSpec:
    bits = 8 if format_ in ("fp8", "int8") else 4
    # OCP microscaling: an 8-bit scale for 32 values; NVFP4: an FP8 scale for 16 values.
    if format_ == "mxfp4":
        group_size, overhead_bits = 32, 8 / 32
    elif format_ == "nvfp4":
        group_size, overhead_bits = 16, 8 / 16
    return QuantizationSpec(
        method=keys.text("quant_method"),
        format=format_,
        bits=bits,
        weight_only=weight_only,
        group_size=group_size,
        overhead_bits=overhead_bits,
        block_width=_block_width(keys),
        fp8_kv_cache=_fp8_kv_cache(keys),
        components=components,
    )


def _block_width(keys: ConfigKeys) -> int | None:
    """Larger side of the blocks that share a scale: what a rank's share must be a multiple of."""
    block = _block(keys)
    return None if block is None else max(block)


def _fp8_kv_cache(keys: ConfigKeys) -> bool:
    """Whether the file asks for an FP8 cache, which vLLM then uses for ``auto``."""
    algorithm = keys.data.get("kv_cache_quant_algo")
    if algorithm is not None:
        if str(algorithm).upper() != "FP8":
            raise keys.fail(f"kv_cache_quant_algo={algorithm!r} is not understood: only FP8 is")
        return True
    scheme = keys.section("kv_cache_scheme")
    if scheme is None:
        return False
    bits, kind = scheme.integer("num_bits"), scheme.text("type")
    if (bits, kind) != (8, "float"):
        raise scheme.fail(f"a KV cache of {bits}-bit {kind} is not understood: only 8-bit float is")
    return True


def _block_scale_bits(keys: ConfigKeys) -> float:
    """One float32 scale per block of weights; per-tensor scales weigh nothing."""
    block = _block(keys)
    return 0.0 if block is None else 32.0 / float(block[0] * block[1])


def _block(keys: ConfigKeys) -> tuple[int, int] | None:
    block = keys.sequence("weight_block_size")
    if block is None:
        return None
    if len(block) != 2 or not all(type(side) is int and side > 0 for side in block):
        raise keys.fail(f"weight_block_size={block!r} must be two positive whole numbers")
    return block[0], block[1]


def _integer_format(keys: ConfigKeys, bits: int) -> QuantizedFormat:
    if bits == 4:
        return "int4"
    if bits == 8:
        return "int8"
    raise keys.fail(f"{bits}-bit weights are not understood: only 4 and 8 bits are")


def _grouped_integers(
    keys: ConfigKeys, method: str, components: tuple[str, ...]
) -> QuantizationSpec:
    """GPTQ and AWQ: a 16-bit scale and a zero point for each group of weights."""
    bits = keys.integer("bits", "w_bit")
    group = keys.integer("group_size", "q_group_size", default=128, minimum=-1)
    if group == 0:
        raise keys.fail("group_size=0 must be positive, or -1 for a scale per channel")
    symmetric = keys.boolean("sym", default=True) if method == "gptq" else False
    zero_bits = 0 if symmetric else bits
    return _spec(
        keys,
        _integer_format(keys, bits),
        components,
        weight_only=True,
        group_size=group if group > 0 else None,
        overhead_bits=(16 + zero_bits) / group if group > 0 else 0.0,
    )


def _model_opt(keys: ConfigKeys, components: tuple[str, ...]) -> QuantizationSpec:
    algorithm = keys.text("quant_algo")
    if algorithm == "FP8":
        return _spec(keys, "fp8", components)
    if algorithm == "NVFP4":
        return _spec(keys, "nvfp4", components)
    raise keys.fail(
        unknown_name("quant_algo", algorithm, ("FP8", "NVFP4"), remedy="(understood: FP8, NVFP4)")
    )


def _compressed_tensors(keys: ConfigKeys, components: tuple[str, ...]) -> QuantizationSpec:
    """Groups of modules with a format each; more than one format is refused."""
    groups = keys.section("config_groups")
    if groups is None or not groups.data:
        raise keys.fail("config_groups must hold at least one group")
    specs, targeted = [], set()
    for name in groups.data:
        group = groups.section(name)
        if group is None:
            raise groups.fail(f"{name} must be a mapping")
        specs.append(_group_format(keys, group, components))
        targeted |= _targeted_components(group)
    if any(spec != specs[0] for spec in specs):
        formats = ", ".join(sorted({spec.format for spec in specs}))
        raise keys.fail(f"config_groups hold different formats ({formats}), which is not priced")
    return replace(specs[0], components=tuple(name for name in components if name in targeted))


def _targeted_components(group: ConfigKeys) -> set[str]:
    """Components that a group's ``targets`` name: all linear layers, or patterns of modules."""
    targets = group.sequence("targets") or ["Linear"]
    if "Linear" in targets:
        return set(QUANTIZED_COMPONENTS)
    found = set()
    for target in targets:
        if not isinstance(target, str) or not target.startswith("re:"):
            raise group.fail(f"targets: {target!r} is neither 'Linear' nor a 're:' pattern")
        try:
            pattern = re.compile(target.removeprefix("re:"))
        except re.error as error:
            raise group.fail(f"targets: {target!r} is no regular expression: {error}") from None
        found |= {module for module in _MODULES if pattern.match(module)}
    components = {name for module, name in _MODULES.items() if module in found}
    for module, name in _MODULES.items():
        if name in components and module not in found:
            raise group.fail(f"targets leave out {module}, a part of {name}, which is not priced")
    if not components:
        raise group.fail(f"targets {targets!r} name no known module")
    return components


def _group_format(
    keys: ConfigKeys, group: ConfigKeys, components: tuple[str, ...]
) -> QuantizationSpec:
    weights = group.section("weights")
    if weights is None:
        raise keys.fail("config_groups: the group must say how 'weights' are quantised")
    weight_only = group.section("input_activations") is None
    bits, kind = weights.integer("num_bits"), weights.text("type")
    size = weights.optional_integer("group_size")
    if kind == "float" and bits == 8:
        return _spec(keys, "fp8", components, weight_only=weight_only)
    if kind == "float" and bits == 4 and size in (16, 32):
        return _spec(keys, "nvfp4" if size == 16 else "mxfp4", components, weight_only=weight_only)
    if kind == "int":
        zero_bits = 0 if weights.boolean("symmetric", default=True) else bits
        return _spec(
            keys,
            _integer_format(keys, bits),
            components,
            weight_only=weight_only,
            group_size=size,
            overhead_bits=(16 + zero_bits) / size if size else 0.0,
        )
    raise weights.fail(f"{bits}-bit {kind} weights with group_size={size} are not understood")


def _ignored_modules(keys: ConfigKeys) -> list[str]:
    for name in ("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules"):
        listed = keys.sequence(name)
        if listed is not None:
            if not all(isinstance(module, str) for module in listed):
                raise keys.fail(f"{name} must be a list of module names")
            return [str(module) for module in listed]
    return []


def _quantized_components(
    keys: ConfigKeys, ignored: list[str], num_layers: int, moe_layers: tuple[bool, ...]
) -> tuple[str, ...]:
    """Components left after the ignored modules; each must be ignored whole or not at all."""
    everywhere = set(range(num_layers))
    parts: dict[tuple[str, int], set[str]] = defaultdict(set)
    for module in ignored:
        if _NEVER.search(module):
            continue
        names = _components_of(module)
        if not names:
            raise keys.fail(f"module {module!r}, left unquantised, is not understood")
        numbered = _LAYER.search(module)
        part = _PART.search(module)
        for name in names:
            for layer in {int(numbered[1])} if numbered else everywhere:
                parts[name, layer].add(part[1] if part else "")
    skipped = {name: _whole_layers(keys, name, parts) for name in QUANTIZED_COMPONENTS}
    routed = {layer for layer, moe in enumerate(moe_layers) if moe}
    owned = {
        "attention": everywhere,
        "mlp": everywhere - routed or everywhere,
        "experts": routed or everywhere,
        "shared_experts": routed or everywhere,
    }
    kept = []
    for name in QUANTIZED_COMPONENTS:
        missing = owned[name] - skipped[name]
        if missing == owned[name]:
            kept.append(name)
        elif missing:
            raise keys.fail(
                f"{name} is left unquantised in some layers only ({len(owned[name] - missing)} of "
                f"{len(owned[name])}), which is not priced"
            )
    return tuple(kept)


def _whole_layers(keys: ConfigKeys, name: str, parts: dict[tuple[str, int], set[str]]) -> set[int]:
    """Layers in which all matrices of a component are left out; refuse a part of them."""
    layers = set()
    for (component, layer), names in parts.items():
        if component != name:
            continue
        alternatives = _WHOLE.get("mlp" if "expert" in name else name, ())
        if "" not in names and not any(whole <= names for whole in alternatives):
            raise keys.fail(
                f"only {', '.join(sorted(names))} of {name} in layer {layer} are left unquantised, "
                "which is not priced"
            )
        layers.add(layer)
    return layers


def _components_of(module: str) -> tuple[str, ...]:
    if re.search(r"self_attn|attention|[qkvo]_proj|qkv", module):
        return ("attention",)
    if "shared_expert" in module:
        return ("shared_experts",)
    if "expert" in module:
        return ("experts",)
    if re.search(r"mlp|feed_forward|(gate|up|down)_proj", module):
        return ("mlp",)
    return ()
