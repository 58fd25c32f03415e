"""docs/cost_model.md, line by line, in fractions: what the core's roofline is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from llm_inference_simulator._core import StepShape
from llm_inference_simulator.catalog.model_spec import MlaSpec, ModelSpec, MoeSpec
from llm_inference_simulator.performance_models.hardware import RooflineHardware


@dataclass(frozen=True)
class Setting:
    """A model on a group of accelerators, as the formulas see it."""

    model: ModelSpec
    xpu: RooflineHardware
    ranks: int
    weight_bytes: Fraction
    """Of a weight of the quantised components."""
    quantized: frozenset[str]
    """Components in that format; the others have 16 bits."""
    kv_bytes: int
    window: int
    """0: no sequence outgrows it."""
    expert_parallel: bool
    engines: int
    imbalance: Fraction


def exact_seconds(setting: Setting, step: StepShape) -> Fraction:
    """Seconds of a step."""
    return sum(_Step(setting, step).parts(), Fraction(0))


class _Step:
    """Sums and rates of one step under the symbols of docs/cost_model.md."""

    def __init__(self, setting: Setting, step: StepShape) -> None:
        self.s, self.step, self.m = setting, step, setting.model
        self.rate = setting.xpu.prefill if step.prefill_seqs else setting.xpu.decode
        self.tokens = step.prefill_tokens + step.decode_seqs
        self.h = Fraction(self.m.hidden_size)
        self.a = Fraction(2)

    def kernel(
        self, repeat: int, flops: Fraction | int, moved: Fraction | int, *, linear: bool = False
    ) -> Fraction:
        peak = Fraction(self.rate.linear_flops if linear else self.rate.attention_flops)
        work = max(flops / peak, moved / Fraction(self.rate.memory_bandwidth))
        return repeat * (work + Fraction(self.s.xpu.kernel_latency_s))

    def weight(self, component: str) -> tuple[Fraction, bool]:
        """(bytes, whether the rate of the layers' matrices applies)."""
        if component in self.s.quantized:
            return self.s.weight_bytes, True
        return self.a, not self.s.quantized

    def matrix(self, component: str, repeat: int, inputs: Fraction, outputs: Fraction) -> Fraction:
        stored, linear = self.weight(component)
        moved = inputs * outputs * stored + self.tokens * (inputs + outputs) * self.a
        return self.kernel(repeat, 2 * self.tokens * inputs * outputs, moved, linear=linear)

    def elementwise(self, repeat: int, flops: Fraction | int, numbers: Fraction | int) -> Fraction:
        return self.kernel(repeat, self.tokens * flops, self.tokens * numbers * self.a)

    def mlp(self, component: str, repeat: int, whole: int) -> Fraction:
        matrices, width = 2 if self.m.gated_mlp else 1, Fraction(whole, self.s.ranks)
        return (
            self.matrix(component, repeat, self.h, matrices * width)
            + self.elementwise(repeat, 4 * width, (matrices + 1) * width)
            + self.matrix(component, repeat, width, self.h)
        )

    def parts(self) -> list[Fraction]:
        model, step = self.m, self.step
        norms = model.norms_per_layer * model.num_layers + model.final_norm
        found = [
            self.elementwise(1, 0, 2 * self.h),
            self.elementwise(norms, 4 * self.h, 4 * self.h),
            self.latent(model.mla) if model.mla else self.grouped(),
        ]
        expert_layers = sum(model.moe.layers) if model.moe else 0
        if expert_layers < model.num_layers:
            found.append(self.mlp("mlp", model.num_layers - expert_layers, model.intermediate_size))
        if model.moe:
            found.append(self.experts(model.moe, expert_layers))
        vocabulary = Fraction(model.vocab_size, self.s.ranks)
        if step.sampled_seqs:
            moved = vocabulary * self.h * self.a
            moved += step.sampled_seqs * (self.h + vocabulary) * self.a
            found.append(self.kernel(1, 2 * step.sampled_seqs * self.h * vocabulary, moved))
        if self.s.ranks > 1:
            found += self.collectives(vocabulary, expert_layers)
        seqs = step.prefill_seqs + step.decode_seqs
        found.append(
            Fraction(self.rate.step_overhead_s) + seqs * Fraction(self.s.xpu.sequence_overhead_s)
        )
        return found

    def grouped(self) -> Fraction:
        model, step = self.m, self.step
        d = model.head_dim
        q = Fraction(model.num_attention_heads, self.s.ranks) * d
        k = max(Fraction(1), Fraction(model.num_key_value_heads, self.s.ranks)) * d
        windowed = sum(kind != "full" for kind in model.attention_kinds) if self.s.window else 0
        layers = model.num_layers
        total = self.matrix("attention", layers, self.h, q + 2 * k)
        if model.qk_norm != "none":
            total += self.elementwise(layers, 4 * (q + k), 2 * (q + k))
        if not model.learned_positions:
            total += self.elementwise(layers, 3 * (q + k), 2 * (q + k))
        total += self.kernel(layers, 0, 2 * self.tokens * k * (self.a + self.s.kv_bytes))
        for repeat, pairs, prefill_keys, decode_keys in (
            (
                layers - windowed,
                step.prefill_attention_pairs,
                step.prefill_context_tokens,
                step.decode_context_tokens,
            ),
            (
                windowed,
                step.prefill_window_pairs,
                step.prefill_window_tokens,
                step.decode_window_tokens,
            ),
        ):
            if repeat and step.prefill_tokens:
                moved = 2 * step.prefill_tokens * q * self.a
                moved += 2 * prefill_keys * k * self.s.kv_bytes
                total += self.kernel(repeat, 4 * pairs * q, moved)
            if repeat and step.decode_seqs:
                moved = 2 * step.decode_seqs * q * self.a + 2 * decode_keys * k * self.s.kv_bytes
                total += self.kernel(repeat, 4 * decode_keys * q, moved)
        return total + self.matrix("attention", layers, q, self.h)

    def latent(self, mla: MlaSpec) -> Fraction:
        model, step = self.m, self.step
        layers, b = model.num_layers, self.s.kv_bytes
        heads = Fraction(model.num_attention_heads, self.s.ranks)
        nope, rope, value, rank = (
            mla.qk_nope_head_dim,
            mla.qk_rope_head_dim,
            mla.v_head_dim,
            mla.kv_lora_rank,
        )
        latent = rank + rope
        sparse = mla.index_top_k > 0 and self.s.window > 0
        pairs = step.prefill_window_pairs if sparse else step.prefill_attention_pairs
        keys = step.decode_window_tokens if sparse else step.decode_context_tokens
        total = self.matrix("attention", layers, self.h, Fraction(latent + (mla.q_lora_rank or 0)))
        inputs = Fraction(mla.q_lora_rank or model.hidden_size)
        total += self.matrix("attention", layers, inputs, heads * (nope + rope))
        total += self.elementwise(layers, 3 * (heads + 1) * rope, 2 * (heads + 1) * rope)
        total += self.kernel(layers, 0, self.tokens * latent * (self.a + b))
        if mla.index_num_heads and mla.q_lora_rank:
            width = mla.index_num_heads * mla.index_head_dim
            total += self.matrix("indexer", layers, inputs, Fraction(width))
            if step.prefill_tokens:
                total += self.kernel(
                    layers,
                    2 * step.prefill_attention_pairs * width,
                    step.prefill_context_tokens * mla.index_head_dim,
                )
            if step.decode_seqs:
                total += self.kernel(
                    layers,
                    2 * step.decode_context_tokens * width,
                    step.decode_context_tokens * mla.index_head_dim,
                )
        if step.prefill_tokens:
            expanded = heads * (nope + value)
            stored, linear = self.weight("attention")
            moved = rank * expanded * stored
            moved += step.prefill_context_tokens * (latent * b + expanded * self.a)
            flops = 2 * step.prefill_context_tokens * rank * expanded
            total += self.kernel(layers, flops, moved, linear=linear)
            width = nope + rope + value
            read = (step.prefill_tokens + step.prefill_context_tokens) * heads * width * self.a
            total += self.kernel(layers, 2 * pairs * heads * width, read)
        if step.decode_seqs:
            for size in (nope, value):
                moved = heads * rank * size * self.a
                moved += step.decode_seqs * heads * (rank + size) * self.a
                total += self.kernel(layers, 2 * step.decode_seqs * heads * rank * size, moved)
            moved = step.decode_seqs * heads * (latent + rank) * self.a + keys * latent * b
            total += self.kernel(layers, 2 * keys * heads * (latent + rank), moved)
        return total + self.matrix("attention", layers, heads * value, self.h)

    def experts(self, moe: MoeSpec, layers: int) -> Fraction:
        count, chosen = moe.num_experts, moe.top_k
        spread = self.s.ranks * self.s.engines if self.s.expert_parallel else 1
        width = Fraction(moe.intermediate_size, 1 if self.s.expert_parallel else self.s.ranks)
        asleep = Fraction(count - chosen, count) ** (self.tokens * self.s.engines)
        awake = count * (1 - asleep) / spread
        visits = Fraction(chosen * self.s.engines, spread)
        if spread > 1:
            visits *= self.s.imbalance
        stored, linear = self.weight("experts")
        moved = count * self.h * self.a + self.tokens * (self.h + count) * self.a
        total = self.kernel(layers, 2 * self.tokens * self.h * count, moved)
        for inputs, outputs in ((self.h, 2 * width), (width, self.h)):
            moved = awake * inputs * outputs * stored
            moved += self.tokens * visits * (inputs + outputs) * self.a
            flops = 2 * self.tokens * visits * inputs * outputs
            total += self.kernel(layers, flops, moved, linear=linear)
        total += self.elementwise(layers, 4 * visits * width, 3 * visits * width)
        if self.s.engines > 1:
            sent = self.tokens * chosen * self.h * self.a * (1 - Fraction(1, spread))
            link = Fraction(self.s.xpu.link_bandwidth)
            once = sent / self.s.ranks / link + Fraction(self.s.xpu.link_latency_s)
            total += 2 * layers * once
        if moe.shared_intermediate_size:
            total += self.mlp("shared_experts", layers, moe.shared_intermediate_size)
        if moe.dense_beside_experts:
            total += self.mlp("mlp", layers, self.m.intermediate_size)
        return total

    def collectives(self, vocabulary: Fraction, expert_layers: int) -> list[Fraction]:
        t, xpu = self.s.ranks, self.s.xpu
        link, hop = Fraction(xpu.link_bandwidth), Fraction(xpu.link_latency_s)
        payload = self.tokens * self.h * self.a
        ring = Fraction(2 * (t - 1), t) * payload / link + 2 * (t - 1) * hop
        tree = 2 * payload / link + 2 * (t - 1).bit_length() * hop
        chosen = {"ring": ring, "tree": tree, "auto": min(ring, tree)}[xpu.all_reduce]
        sums = 2 * self.m.num_layers + 1 - (expert_layers if self.s.engines > 1 else 0)
        found = [sums * chosen]
        if self.step.sampled_seqs:
            gathered = self.step.sampled_seqs * vocabulary * (t - 1) * self.a
            found.append(gathered / link + (t - 1) * hop)
        return found
