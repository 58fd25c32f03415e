"""Finds measurements in another unit: matrix products that no accelerator could take so long for.

Only matrix products are looked at: their operations are known exactly, and their speed lies within
two decades of the peak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from llm_inference_simulator.catalog import XpuSpec
from llm_inference_simulator.errors import CalibrationError

FASTEST = 1.5
"""A matrix product faster than this many times the peak cannot be: its unit is wrong."""
SLOWEST = 100.0
"""A table whose median large product is slower than the peak by more than this has another unit."""
_LARGE = 1024
"""Least size of each side of a product that should come near the peak."""


@dataclass(slots=True)
class UnitCheck:
    """Looks at the products of one file."""

    path: Path
    xpu: XpuSpec
    column: str
    unit: str
    """What the file's times should be in."""
    _slowness: list[float] = field(default_factory=list)

    def product(self, row: int, said: object, latency_ns: float, *size: int) -> None:
        """Refuse a product of the three sizes m, n and k that is too fast."""
        xpu = self.xpu
        peak = max(xpu.bf16_flops, xpu.fp8_flops or 0.0, xpu.fp4_flops or 0.0)
        ratio = latency_ns * peak / (2.0 * math.prod(size) * 1e9)
        if ratio < 1 / FASTEST:
            raise CalibrationError(
                f"{self.path}, row {row}: {self.column}={said} would take {1 / ratio:.3g} times "
                f"the peak of {xpu.name}: {self._remedy}"
            )
        if min(size) >= _LARGE:
            self._slowness.append(ratio)

    def finish(self) -> None:
        """Refuse a file whose large products are all too slow."""
        if not self._slowness:
            return
        typical = sorted(self._slowness)[len(self._slowness) // 2]
        if typical > SLOWEST:
            raise CalibrationError(
                f"{self.path}: large products reach {1 / typical:.2%} of the peak of "
                f"{self.xpu.name}: {self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return f"{self.column} must be {self.unit}"
