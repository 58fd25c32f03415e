"""The mixture-of-experts part of a config.json, in the words of each family."""

from __future__ import annotations

from llm_inference_simulator.catalog.config_keys import ConfigKeys
from llm_inference_simulator.catalog.families import Family
from llm_inference_simulator.catalog.model_spec import MoeSpec

_COUNT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")


def read_experts(keys: ConfigKeys, family: Family, layers: int) -> MoeSpec | None:
    """Experts of the model, or None if it is dense."""
    if family.experts == "none":
        for key in _COUNT_KEYS:
            if (keys.optional_integer(key, minimum=0) or 0) > 1:
                raise keys.fail(
                    f"{key}={keys.data[key]} announces experts, which model_type="
                    f"{keys.data['model_type']!r} does not have: correct one of them"
                )
        return None
    if family.experts == "gemma4" and not keys.boolean("enable_moe_block", default=False):
        return None
    if family.experts == "deepseek" and keys.optional_integer("n_routed_experts") is None:
        return None  # the classes of DeepSeek are dense throughout without experts
    experts = keys.integer(*_COUNT_KEYS)
    top_k = keys.integer("num_experts_per_tok", "experts_per_token", "top_k_experts")
    if top_k > experts:
        raise keys.fail(f"top-k of {top_k} exceeds the {experts} experts")
    is_gpt_oss = keys.data["model_type"] == "gpt_oss"
    is_deepseek = family.experts == "deepseek"
    return MoeSpec(
        num_experts=experts,
        top_k=top_k,
        intermediate_size=keys.integer("moe_intermediate_size", "intermediate_size"),
        shared_intermediate_size=_shared_width(keys, family),
        layers=_moe_layers(keys, family, layers),
        # DeepSeek's is the correction that balances the load, not an addend of the logits.
        router_bias=is_gpt_oss or (is_deepseek and keys.data.get("topk_method") == "noaux_tc"),
        expert_bias=is_gpt_oss,
        shared_gate=keys.data["model_type"] == "qwen2_moe",
        dense_beside_experts=family.experts == "gemma4",
    )


def _shared_width(keys: ConfigKeys, family: Family) -> int:
    if family.experts == "llama4":
        return keys.integer("intermediate_size")
    if family.experts == "deepseek":
        shared = keys.optional_integer("n_shared_experts", minimum=0) or 0
        return shared * keys.integer("moe_intermediate_size")
    return keys.integer("shared_expert_intermediate_size", default=0, minimum=0)


def _moe_layers(keys: ConfigKeys, family: Family, layers: int) -> tuple[bool, ...]:
    indices = range(layers)
    if family.experts == "qwen":
        step = keys.integer("decoder_sparse_step", default=1)
        dense = keys.sequence("mlp_only_layers") or []
        return tuple(layer not in dense and (layer + 1) % step == 0 for layer in indices)
    if family.experts == "llama4":
        listed = keys.sequence("moe_layers")
        if listed:
            return tuple(layer in listed for layer in indices)
        step = keys.integer("interleave_moe_layer_step", default=1)
        return tuple((layer + 1) % step == 0 for layer in indices)
    if family.experts == "deepseek":
        first = keys.integer("first_k_dense_replace", default=0, minimum=0)
        frequency = keys.data.get("moe_layer_freq", 1)
        if isinstance(frequency, list):
            if len(frequency) != layers:
                raise keys.fail(f"moe_layer_freq has {len(frequency)} entries for {layers} layers")
            return tuple(layer >= first and bool(frequency[layer]) for layer in indices)
        step = keys.integer("moe_layer_freq", default=1)
        return tuple(layer >= first and layer % step == 0 for layer in indices)
    return (True,) * layers
