"""Times of single operations on PyTorch's device: CUDA events on a GPU, the clock on a CPU."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llm_inference_simulator.errors import ConfigError

_WARM_UPS = 3
_REPEATS = 7
_SHORTEST_MS = 1.0
"""Operations shorter than this are timed many at once: a clock's own cost would count."""
_MOST_AT_ONCE = 200


class TorchDevice:
    """The first GPU, or the CPU."""

    def __init__(self) -> None:
        try:
            import torch
        except ModuleNotFoundError:
            raise ConfigError(
                "PyTorch is not installed: install torch for your device, or calibrate from step "
                "logs (python -m llm_inference_simulator calibrate --help)"
            ) from None
        self.torch: Any = torch
        self._gpu = bool(torch.cuda.is_available())
        self.device = "cuda" if self._gpu else "cpu"
        self.count = int(torch.cuda.device_count()) if self._gpu else 1
        self.dtype = torch.bfloat16
        self.dtype_name = "bfloat16"
        self.name = torch.cuda.get_device_name(0) if self._gpu else platform.machine()

    def columns(self, operation: str, source: str = "torch") -> dict[str, str]:
        """What every row of an op table says of its origin."""
        return {
            "framework": "torch",
            "version": str(self.torch.__version__),
            "device": str(self.name),
            "op_name": operation,
            "kernel_source": source,
        }

    def gemm_ms(self, m: int, n: int, k: int) -> float:
        """Milliseconds of m tokens times an (n, k) weight."""
        tokens, weight = self._random(m, k), self._random(n, k)
        linear = self.torch.nn.functional.linear
        return self._median_ms(lambda: linear(tokens, weight))

    def attention_ms(
        self, batch: int, length: int, cached: int, *, heads: int, shared: int, head_dim: int
    ) -> float:
        """Milliseconds of causal attention with ``shared`` key-value heads."""
        torch = self.torch
        query = self._random(batch, heads, length, head_dim)
        key = self._random(batch, shared, cached + length, head_dim)
        value = self._random(batch, shared, cached + length, head_dim)
        causal = length > 1 and cached == 0
        mask = None
        if length > 1 and cached:
            reach = torch.arange(cached + length, device=self.device)
            mask = reach[None, :] <= reach[cached:, None]
        attend = torch.nn.functional.scaled_dot_product_attention
        options = {"enable_gqa": heads != shared}
        return self._median_ms(
            lambda: attend(query, key, value, attn_mask=mask, is_causal=causal, **options)
        )

    def norm_ms(self, tokens: int, hidden: int) -> float:
        """Milliseconds of an RMS normalisation."""
        state, scale = self._random(tokens, hidden), self._random(hidden)
        norm = self.torch.nn.functional.rms_norm
        return self._median_ms(lambda: norm(state, (hidden,), scale))

    def all_reduce_ms(self, ranks: int, sizes: Sequence[int]) -> Iterator[tuple[int, float]]:
        """Milliseconds of NCCL's all-reduce over ``ranks`` GPUs, by bytes."""
        nccl = self.torch.cuda.nccl
        for size in sizes:
            parts = [
                self.torch.zeros(size // 2, dtype=self.torch.float16, device=f"cuda:{rank}")
                for rank in range(ranks)
            ]
            yield size, self._median_ms(lambda parts=parts: nccl.all_reduce(parts))  # type: ignore[misc]

    def _random(self, *shape: int) -> Any:
        return self.torch.randn(*shape, dtype=self.dtype, device=self.device)

    def _median_ms(self, operation: Callable[[], object]) -> float:
        with self.torch.inference_mode():
            for _ in range(_WARM_UPS):
                operation()
            once = self._elapsed_ms(operation, 1)
            count = min(_MOST_AT_ONCE, max(1, round(_SHORTEST_MS / max(once, 1e-6))))
            times = [self._elapsed_ms(operation, count) / count for _ in range(_REPEATS)]
        return statistics.median(times)

    def _elapsed_ms(self, operation: Callable[[], object], count: int) -> float:
        if self._gpu:
            start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(count):
                operation()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))
        began = time.perf_counter()
        for _ in range(count):
            operation()
        return 1e3 * (time.perf_counter() - began)
