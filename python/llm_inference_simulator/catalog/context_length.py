"""A model's context length from its config.json, by vLLM's rules.

Source: ``_get_and_verify_max_len`` in vLLM. The context is max_position_embeddings, times the
scaling factor of the rotary positions, except for the kinds whose max_position_embeddings already
is the scaled length; yarn scales original_max_position_embeddings.
"""

from __future__ import annotations

from llm_inference_simulator.catalog.config_keys import ConfigKeys

_ALREADY_SCALED = ("su", "longrope", "llama3")
_KNOWN = (*_ALREADY_SCALED, "default", "linear", "dynamic", "yarn", "proportional", "mrope")


def read_context_length(keys: ConfigKeys, model_type: str) -> int:
    """Context in tokens."""
    context = keys.integer("max_position_embeddings", "n_positions")
    if model_type.startswith("gemma3"):
        return context  # its max_position_embeddings is the scaled length for any kind
    for scaling in _scalings(keys):
        kind = scaling.data.get("rope_type", scaling.data.get("type", "default"))
        if kind not in _KNOWN:
            raise scaling.fail(f"rope_type={kind!r} is not understood (known: {', '.join(_KNOWN)})")
        if kind in _ALREADY_SCALED:
            continue
        if kind == "yarn":
            context = scaling.integer("original_max_position_embeddings")
        return int(context * scaling.number("factor", default=1.0))
    return context


def _scalings(keys: ConfigKeys) -> list[ConfigKeys]:
    """The scaling section: ``rope_scaling``, or ``rope_parameters``, which may differ by layer."""
    section = keys.section("rope_scaling") or keys.section("rope_parameters")
    if section is None:
        return []
    by_layer = [
        section.section(name) for name, value in section.data.items() if type(value) is dict
    ]
    nested = [part for part in by_layer if part is not None]
    # Scaled sections first, so that a plain one does not end the search.
    return sorted(nested or [section], key=lambda part: "factor" not in part)
