"""The vision tower of a multimodal model, which vLLM loads and profiles even for text.

Formulas: the encoders' definitions in Hugging Face transformers; image sizes as vLLM's profiling
run chooses them (the largest that a prompt may hold).
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_inference_simulator.catalog.config_keys import ConfigKeys

LLAMA4_TILES = 17
"""Largest image of Llama 4: 16 tiles (its image processor's ``max_patches``) and the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSpec:
    """Encoder of images with its projector; vLLM runs it in 16 bits, split over the ranks."""

    parameters: int
    hidden_size: int
    intermediate_size: int
    patches: int
    """Positions of the largest image in the encoder."""
    prompt_tokens: int
    """Tokens that this image takes in the prompt."""


def read_vision(outer: ConfigKeys, text_hidden_size: int) -> VisionSpec | None:
    """Read ``vision_config``; None where there is none or its architecture is not known."""
    keys = outer.section("vision_config")
    if keys is None:
        return None
    kind = keys.data.get("model_type")
    if kind == "llama4_vision_model":
        return _llama4(keys, text_hidden_size)
    if kind == "siglip_vision_model":
        return _siglip(keys, outer.integer("mm_tokens_per_image", default=256), text_hidden_size)
    if kind == "gemma4_vision":
        return _gemma4(keys, text_hidden_size)
    return None


def _llama4(keys: ConfigKeys, text_hidden_size: int) -> VisionSpec:
    hidden, width = keys.integer("hidden_size"), keys.integer("intermediate_size")
    side, patch = keys.integer("image_size"), keys.integer("patch_size")
    positions = (side // patch) ** 2
    inner, outer = keys.integer("projector_input_dim"), keys.integer("projector_output_dim")
    ends = (
        3 * patch**2 * hidden  # patch embedding
        + (positions + 2) * hidden  # positions and class, with the class's own position
        + 4 * hidden  # two norms
    )
    adapter = width * inner + inner * outer + keys.integer("vision_output_dim") * text_hidden_size
    shuffle = keys.number("pixel_shuffle_ratio", default=0.5)
    return VisionSpec(
        parameters=keys.integer("num_hidden_layers") * _layer(hidden, width) + ends + adapter,
        hidden_size=hidden,
        intermediate_size=width,
        patches=LLAMA4_TILES * (positions + 1),
        prompt_tokens=LLAMA4_TILES * round(positions * shuffle**2),
    )


def _siglip(keys: ConfigKeys, prompt_tokens: int, text_hidden_size: int) -> VisionSpec:
    hidden, width = keys.integer("hidden_size"), keys.integer("intermediate_size")
    side, patch = keys.integer("image_size"), keys.integer("patch_size")
    positions = (side // patch) ** 2
    ends = (3 * patch**2 + 1) * hidden + positions * hidden + 2 * hidden
    projector = hidden * text_hidden_size + hidden
    return VisionSpec(
        parameters=keys.integer("num_hidden_layers") * _layer(hidden, width) + ends + projector,
        hidden_size=hidden,
        intermediate_size=width,
        patches=positions,
        prompt_tokens=prompt_tokens,
    )


def _gemma4(keys: ConfigKeys, text_hidden_size: int) -> VisionSpec:
    """Gated MLP and no biases; learned positions for height and for width."""
    hidden, width = keys.integer("hidden_size"), keys.integer("intermediate_size")
    tokens = keys.integer("default_output_length")
    layer = 4 * hidden**2 + 3 * hidden * width + 4 * hidden + 2 * keys.integer("head_dim")
    ends = (3 * keys.integer("patch_size") ** 2 + text_hidden_size) * hidden
    positions = 2 * keys.integer("position_embedding_size") * hidden
    return VisionSpec(
        parameters=keys.integer("num_hidden_layers") * layer + ends + positions,
        hidden_size=hidden,
        intermediate_size=width,
        patches=tokens * keys.integer("pooling_kernel_size") ** 2,
        prompt_tokens=tokens,
    )


def _layer(hidden: int, width: int) -> int:
    """Attention and a plain MLP, all with biases, and two norms."""
    return 4 * hidden * (hidden + 1) + 2 * hidden * width + width + hidden + 4 * hidden
