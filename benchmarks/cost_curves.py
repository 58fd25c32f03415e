"""The core's cost per request against one quantity at a time, as a table and as a picture.

    python benchmarks/cost_curves.py --picture docs/images/cost_curves.png

512 prompt tokens, 128 output tokens, one engine, prefix caching on with prompts that nobody shares,
unless the curve says otherwise. A point is the fastest of three runs of the event loop alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.bench import SETTINGS, Case, best_of
from llm_inference_simulator.files import atomic_path

CACHED = replace(SETTINGS, enable_prefix_caching=True)
BASE = Case(requests=50_000, settings=CACHED)


@dataclass(frozen=True)
class Curve:
    """How the cost per request moves with one quantity."""

    panel: str
    """What the quantity is; curves of one panel are drawn together."""
    name: str
    values: tuple[int, ...]
    case: Callable[[int], Case]


@dataclass(frozen=True)
class Point:
    """One measured case of a curve."""

    value: float
    per_request_us: float


def _engines(n: int) -> Case:
    # As many requests an engine as a small run has, so that filling up does not count.
    return replace(BASE, engines=n, rate_per_s=8.0 * n, requests=max(BASE.requests, 50 * n))


LENGTHS = (128, 512, 2048, 8192)
PROPORTIONAL = "output tokens"
"""The panel in which cost is proportional: a straight line on a linear axis."""
CURVES = (
    Curve(
        "requests",
        "all different",
        (10_000, 100_000, 1_000_000),
        lambda n: replace(BASE, requests=n),
    ),
    Curve("engines", "steps taken together", (1, 16, 256, 4096), _engines),
    Curve(
        "engines",
        "step by step",
        (1, 16, 256, 4096),
        lambda n: replace(_engines(n), step_by_step=True),
    ),
    Curve(
        "batch (at requests/s)",
        "all different",
        (2, 4, 8, 16, 28),
        lambda rate: replace(BASE, rate_per_s=rate),
    ),
    Curve("prompt tokens", "all different", LENGTHS, lambda n: replace(BASE, prompt=n)),
    Curve("prompt tokens", "all alike", LENGTHS, lambda n: replace(BASE, prompt=n, shared=True)),
    Curve(
        PROPORTIONAL,
        "all different",
        (128, 512, 1024, 2048),
        lambda n: replace(BASE, output=n, rate_per_s=8 * 128 / n),
    ),
    Curve(
        "KV blocks of the cache",
        "all different",
        (2_000, 20_000, 200_000, 2_000_000),
        lambda n: replace(BASE, settings=replace(CACHED, num_gpu_blocks=n)),
    ),
)


def measure(curve: Curve) -> list[Point]:
    """The curve's points."""
    return [Point(value, best_of(curve.case(value)).per_request_us) for value in curve.values]


def print_curves() -> dict[Curve, list[Point]]:
    """Measure all curves and print each as it is done."""
    print("microseconds a request, prefix caching on (batch of the base case: about 11)")
    measured = {}
    for curve in CURVES:
        points = measured[curve] = measure(curve)
        cells = "".join(f"{point.value:>11,}: {point.per_request_us:6.3f}" for point in points)
        print(f"{curve.panel + ', ' + curve.name:38}{cells}", flush=True)
    return measured


def draw(measured: dict[Curve, list[Point]], path: Path) -> None:
    """Draw a panel for each quantity."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit(
            "--picture needs matplotlib: pip install 'llm-inference-simulator[pictures]'"
        ) from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter, NullLocator

    panels = list(dict.fromkeys(curve.panel for curve in measured))
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.6))
    for axis, panel in zip(axes.flat, panels, strict=True):
        curves = {curve: points for curve, points in measured.items() if curve.panel == panel}
        for curve, points in curves.items():
            values = [point.value for point in points]
            costs = [point.per_request_us for point in points]
            axis.plot(values, costs, marker="o", markersize=3, label=curve.name)
        axis.set_xscale("linear" if panel == PROPORTIONAL else "log")
        axis.set_xticks([point.value for point in next(iter(curves.values()))])
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_ylim(bottom=0)
        axis.set_xlabel(panel)
        axis.grid(alpha=0.3)
        if len(curves) > 1:
            axis.legend(fontsize=8)
    for row in axes:
        row[0].set_ylabel("µs a request")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)


def main(words: Sequence[str] | None = None) -> None:
    """Print the curves, and draw them if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw them too")
    arguments = parser.parse_args(words)
    measured = print_curves()
    if arguments.picture:
        draw(measured, arguments.picture)


if __name__ == "__main__":
    main()
