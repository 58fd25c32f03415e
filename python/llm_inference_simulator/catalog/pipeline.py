"""The layers of a model divided into the stages of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PipelineStage:
    """One stage: its place among ``count`` stages, and its layers."""

    index: int
    count: int
    layers: range

    @property
    def is_first(self) -> bool:
        """Whether it embeds the tokens."""
        return self.index == 0

    @property
    def is_last(self) -> bool:
        """Whether it computes logits and samples."""
        return self.index == self.count - 1

    def part_of(self, model: ModelSpec) -> ModelSpec:
        """The model as this stage holds it.

        A matrix that embedding and LM head share lies on the first and on the last stage, images
        are encoded by the first.
        """
        first, last = self.layers.start, self.layers.stop
        moe = model.moe
        if moe is not None:
            here = moe.layers[first:last]
            moe = replace(moe, layers=here) if any(here) else None
        return replace(
            model,
            num_layers=len(self.layers),
            attention_kinds=model.attention_kinds[first:last],
            moe=moe,
            final_norm=model.final_norm and self.is_last,
            learned_positions=model.learned_positions if self.is_first else 0,
            vision=model.vision if self.is_first else None,
            unknown_vision=model.unknown_vision if self.is_first else None,
            holds_embedding=self.is_first or (self.is_last and model.tie_word_embeddings),
            holds_lm_head=self.is_last,
        )


def pipeline_stages(model: ModelSpec, pipeline_parallel_size: int) -> tuple[PipelineStage, ...]:
    """Divide the layers as vLLM does (``get_pp_indices``).

    What does not divide goes to the stages before the last, from the back, since the last one also
    has the LM head. Raises :class:`ConfigError` for more stages than layers.
    """
    size = pipeline_parallel_size
    if size > model.num_layers:
        raise ConfigError(
            f"pipeline_parallel_size={size} exceeds the {model.num_layers} layers of model "
            f"{model.name!r}: a stage needs a layer; lower it"
        )
    fewest, left = divmod(model.num_layers, size)
    counts = [fewest] * size
    for place in range(2, left + 2):
        counts[-place] += 1
    stages, start = [], 0
    for index, count in enumerate(counts):
        stages.append(PipelineStage(index, size, range(start, start + count)))
        start += count
    return tuple(stages)
