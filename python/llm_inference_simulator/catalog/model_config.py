"""Hugging Face config.json -> :class:`ModelSpec`.

Multimodal files nest the language model in ``text_config``; of their vision towers only the size is
read. Everything that would change the language model's sizes and is not understood is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_inference_simulator.catalog.config_keys import ConfigKeys
from llm_inference_simulator.catalog.context_length import read_context_length
from llm_inference_simulator.catalog.experts import read_experts
from llm_inference_simulator.catalog.families import FAMILIES, FOREIGN_KEYS, Family
from llm_inference_simulator.catalog.model_spec import (
    AttentionKind,
    Dtype,
    HeadSpec,
    MlaSpec,
    ModelSpec,
)
from llm_inference_simulator.catalog.quantization import read_quantization
from llm_inference_simulator.catalog.vision import read_vision
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.files import read_mapping

_KINDS: dict[str, AttentionKind] = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
}
_LLAMA4_FULL_ATTENTION_INTERVAL = 4
"""Every fourth layer has no rotary positions and sees everything, where no list says otherwise."""


def read_model_config(path: Path, *, name: str | None = None) -> ModelSpec:
    """Read a config.json, or the folder that holds it, with ModelOpt's quantisation file beside it.

    ``generation_config.json`` beside it gives the sampling defaults. Raises :class:`ConfigError`
    naming the key that is missing, wrong or not understood.
    """
    file = path / "config.json" if path.is_dir() else path
    data = read_mapping(file, "model configuration")
    model_opt = file.parent / "hf_quant_config.json"
    if file.name == "config.json" and model_opt.is_file() and "quantization_config" not in data:
        section = read_mapping(model_opt, "ModelOpt configuration").get("quantization")
        data["quantization_config"] = (
            {"quant_method": "modelopt", **section} if isinstance(section, dict) else section
        )
    default_name = file.parent.name if file.name == "config.json" else file.stem
    spec = parse_model_config(data, name=name or default_name or "model", source=str(path))
    beside = file.with_name("generation_config.json")
    penalty = read_repetition_penalty(beside) if file.name == "config.json" else 1.0
    return replace(spec, repetition_penalty=penalty)


def read_repetition_penalty(file: Path) -> float:
    """Read what a generation_config.json asks for; 1, none, where there is no such file."""
    if not file.is_file():
        return 1.0
    data = read_mapping(file, "generation configuration")
    value = data.get("repetition_penalty", 1.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 100:
        raise ConfigError(
            f"generation configuration {file}: repetition_penalty={value!r} must be a number above "
            "0; 1 means none"
        )
    return float(value)


def parse_model_config(data: dict[str, Any], *, name: str, source: str) -> ModelSpec:
    """Build the specification from the content of a config.json."""
    outer = ConfigKeys(data, f"model {source}")
    keys = outer.section("text_config") or outer
    model_type, family = _family(keys)
    keys = ConfigKeys({**family.defaults, **keys.data}, keys.source)
    layers = keys.integer("num_hidden_layers", "n_layer")
    hidden = keys.integer("hidden_size", "n_embd", "d_model")
    heads, key_value_heads, head_dim = _heads(keys, family, hidden)
    kinds, window = _attention_kinds(keys, family, layers)
    width = _dense_width(keys, model_type, hidden)
    moe = read_experts(keys, family, layers)
    bias = keys.boolean("attention_bias", default=False)
    qkv_bias = bias if family.qkv_bias is None else family.qkv_bias
    tied = keys if "tie_word_embeddings" in keys else outer
    context = read_context_length(keys, model_type)
    quantized = outer.section("quantization_config") or keys.section("quantization_config")
    mla = _latent_attention(keys) if family.mla else None
    vision = read_vision(outer, hidden)
    global_heads = _global_heads(keys, model_type, heads, head_dim, key_value_heads)
    rotated = mla.qk_rope_head_dim if mla else _rotated_dimensions(keys, family, head_dim)
    if global_heads is not None:
        rotated += global_heads.head_dim
    # Gemma 4's dense layers lack the three norms that join experts and MLP.
    norms = 4 if family.experts == "gemma4" and moe is None else family.norms_per_layer
    _refuse_unlike_layers(keys, hidden)
    return ModelSpec(
        name=name,
        source=source,
        model_type=model_type,
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=head_dim,
        intermediate_size=width,
        gated_mlp=family.gated,
        vocab_size=keys.integer("vocab_size"),
        tie_word_embeddings=tied.boolean("tie_word_embeddings", default=family.tied),
        max_position_embeddings=context,
        dtype=_dtype(keys, outer),
        attention_kinds=kinds,
        window=window,
        global_heads=global_heads,
        qkv_bias=qkv_bias,
        attention_output_bias=bias if family.output_bias is None else family.output_bias,
        mlp_bias=(
            keys.boolean("mlp_bias", default=False) if family.mlp_bias is None else family.mlp_bias
        ),
        lm_head_bias=family.lm_head_bias,
        qk_norm=family.qk_norm,
        attention_sinks=family.sinks,
        norms_per_layer=norms,
        norm_bias=family.norm_bias,
        learned_positions=(
            0 if family.position_offset is None else context + family.position_offset
        ),
        rotary_elements=context * rotated,
        moe=moe,
        mla=mla,
        vision=vision,
        unknown_vision=_unknown_vision(outer) if vision is None else None,
        quantization=(
            read_quantization(quantized, layers, moe.layers if moe else (False,) * layers)
            if quantized
            else None
        ),
    )


def _family(keys: ConfigKeys) -> tuple[str, Family]:
    model_type = keys.text("model_type")
    for key, meaning in FOREIGN_KEYS.items():
        if keys.data.get(key) is not None:
            raise keys.fail(
                f"{key} announces {meaning}, which is not supported: choose a model of "
                "grouped-query or multi-head latent attention"
            )
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise keys.fail(
            unknown_name("model_type", model_type, FAMILIES, remedy=f"(understood: {known})")
        )
    return model_type, FAMILIES[model_type]


def _heads(keys: ConfigKeys, family: Family, hidden: int) -> tuple[int, int, int]:
    heads = keys.integer("num_attention_heads", "n_head")
    if family.required_kv_heads:
        key_value_heads = keys.integer("num_key_value_heads")
    else:
        key_value_heads = keys.optional_integer("num_key_value_heads") or heads
    if heads % key_value_heads:
        raise keys.fail(
            f"num_attention_heads={heads} is not a multiple of num_key_value_heads="
            f"{key_value_heads}"
        )
    head_dim = keys.optional_integer("head_dim")
    if head_dim is None and family.mla:
        head_dim = keys.integer("qk_nope_head_dim") + keys.integer("qk_rope_head_dim")
    if head_dim is None:
        if family.required_kv_heads:
            raise keys.fail("key 'head_dim' is missing: add it to the config.json")
        if hidden % heads:
            raise keys.fail(
                f"hidden_size={hidden} is not a multiple of num_attention_heads={heads}: give "
                "head_dim"
            )
        head_dim = hidden // heads
    return heads, key_value_heads, head_dim


def _dense_width(keys: ConfigKeys, model_type: str, hidden: int) -> int:
    if model_type == "llama4_text":
        return keys.integer("intermediate_size_mlp")
    if model_type == "gpt2":
        return keys.optional_integer("n_inner") or 4 * hidden
    return keys.integer("intermediate_size", "ffn_dim")


def _dtype(keys: ConfigKeys, outer: ConfigKeys) -> Dtype:
    """Dtype of the checkpoint; vLLM's ``auto`` narrows float32, its reading of no dtype, too."""
    for section in (keys, outer):
        for key in ("dtype", "torch_dtype"):
            value = section.data.get(key)
            if value is None:
                continue
            if value == "float16":
                return "float16"
            if value in ("bfloat16", "float32"):
                return "bfloat16"
            raise section.fail(f"{key}={value!r} is not bfloat16, float16 or float32")
    return "bfloat16"


def _attention_kinds(
    keys: ConfigKeys, family: Family, layers: int
) -> tuple[tuple[AttentionKind, ...], int | None]:
    """Attention of each layer, and the window of those that are not full."""
    kinds = _listed_kinds(keys, layers) or _patterned_kinds(keys, family, layers)
    if "chunked" in kinds:
        window = keys.integer("attention_chunk_size")
    elif "sliding" in kinds:
        window = keys.integer("sliding_window")
    else:
        return kinds, None
    return kinds, window


def _listed_kinds(keys: ConfigKeys, layers: int) -> tuple[AttentionKind, ...] | None:
    listed = keys.sequence("layer_types")
    if listed is None:
        return None
    if len(listed) != layers:
        raise keys.fail(
            f"layer_types has {len(listed)} entries for num_hidden_layers={layers} layers"
        )
    for kind in listed:
        if kind not in _KINDS:
            raise keys.fail(
                f"layer_types: {kind!r} is not supported (understood: {', '.join(_KINDS)})"
            )
    return tuple(_KINDS[kind] for kind in listed)


def _patterned_kinds(keys: ConfigKeys, family: Family, layers: int) -> tuple[AttentionKind, ...]:
    rule = family.windows
    if rule == "listed":
        raise keys.fail("key 'layer_types' is missing: add it to the config.json")
    if rule == "chunked":
        return _chunked_kinds(keys, layers)
    window = keys.optional_integer("sliding_window")
    if window is None or (rule == "qwen" and not keys.boolean("use_sliding_window", default=False)):
        return _kinds([False] * layers)
    if rule == "qwen":
        first = keys.integer("max_window_layers", minimum=0)
        return _kinds([layer >= first for layer in range(layers)])
    if rule in ("every_second", "every_sixth"):
        default = 2 if rule == "every_second" else 6
        period = keys.integer("sliding_window_pattern", "_sliding_window_pattern", default=default)
        return _kinds([(layer + 1) % period != 0 for layer in range(layers)])
    return _kinds([True] * layers)


def _kinds(windowed: list[bool], kind: AttentionKind = "sliding") -> tuple[AttentionKind, ...]:
    return tuple(kind if flag else "full" for flag in windowed)


def _chunked_kinds(keys: ConfigKeys, layers: int) -> tuple[AttentionKind, ...]:
    if keys.optional_integer("attention_chunk_size") is None:
        return _kinds([False] * layers)
    rotary = keys.sequence("no_rope_layers")  # 1 where a layer HAS rotary positions
    if not rotary:
        interval = keys.integer("no_rope_layer_interval", default=_LLAMA4_FULL_ATTENTION_INTERVAL)
        rotary = [int((layer + 1) % interval != 0) for layer in range(layers)]
    if len(rotary) != layers or any(flag not in (0, 1) for flag in rotary):
        raise keys.fail(f"no_rope_layers must hold a 0 or 1 for each of {layers} layers")
    return _kinds([flag == 1 for flag in rotary], "chunked")


def _global_heads(
    keys: ConfigKeys, model_type: str, heads: int, head_dim: int, key_value_heads: int
) -> HeadSpec | None:
    if model_type != "gemma4_text":
        return None
    key_is_value = keys.boolean("attention_k_eq_v", default=False)
    # Gemma 4 uses the global number of KV heads only where keys serve as values.
    own = keys.optional_integer("num_global_key_value_heads") if key_is_value else None
    return HeadSpec(
        num_query_heads=heads,
        num_key_value_heads=own or key_value_heads,
        head_dim=keys.optional_integer("global_head_dim") or head_dim,
        key_is_value=key_is_value,
    )


def _latent_attention(keys: ConfigKeys) -> MlaSpec:
    indexed = "index_topk" in keys
    return MlaSpec(
        kv_lora_rank=keys.integer("kv_lora_rank"),
        q_lora_rank=keys.optional_integer("q_lora_rank"),
        qk_nope_head_dim=keys.integer("qk_nope_head_dim"),
        qk_rope_head_dim=keys.integer("qk_rope_head_dim"),
        v_head_dim=keys.integer("v_head_dim"),
        index_num_heads=keys.integer("index_n_heads") if indexed else 0,
        index_head_dim=keys.integer("index_head_dim") if indexed else 0,
        index_top_k=keys.integer("index_topk") if indexed else 0,
    )


def _rotated_dimensions(keys: ConfigKeys, family: Family, head_dim: int) -> int:
    """Columns of vLLM's table of cosines and sines; Gemma 3's two kinds of layers have one each."""
    if family.position_offset is not None:
        return 0
    rotated = int(head_dim * keys.number("partial_rotary_factor", default=1.0))
    return 2 * rotated if family.windows == "every_sixth" else rotated


def _unknown_vision(outer: ConfigKeys) -> str | None:
    section = outer.section("vision_config")
    return None if section is None else str(section.data.get("model_type", "of no model_type"))


def _refuse_unlike_layers(keys: ConfigKeys, hidden: int) -> None:
    """Features of listed architectures that change the sizes and that no shipped model uses."""
    for key in ("num_kv_shared_layers", "hidden_size_per_layer_input"):
        if keys.optional_integer(key, minimum=0):
            raise keys.fail(f"{key}={keys.data[key]} is not supported: choose another model")
    if keys.boolean("use_double_wide_mlp", default=False):
        raise keys.fail("use_double_wide_mlp=true is not supported: choose another model")
    for key in ("use_bias", "do_layer_norm_before"):  # StarCoder2, OPT
        if not keys.boolean(key, default=True):
            raise keys.fail(f"{key}=false is not supported: choose another model")
    if "kv_lora_rank" in keys and keys.boolean("attention_bias", default=False):
        raise keys.fail("attention_bias=true is not supported with multi-head latent attention")
    if keys.data.get("word_embed_proj_dim", hidden) != hidden:
        raise keys.fail(
            f"word_embed_proj_dim={keys.data['word_embed_proj_dim']} differs from "
            f"hidden_size={hidden}, which is not supported: choose another model"
        )
