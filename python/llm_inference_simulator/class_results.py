"""Latency, throughput and goodput of each class of requests, and of all by their own objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator import metrics
from llm_inference_simulator.config import MeasurementConfig
from llm_inference_simulator.metrics import COMPLETED, Columns, Gaps, Window
from llm_inference_simulator.workload_config import WorkloadClass


def summarise_classes(
    classes: Sequence[WorkloadClass],
    columns: Columns,
    window: Window,
    gaps_of: Callable[[NDArray[np.bool_]], Gaps],
    measurement: MeasurementConfig,
) -> dict[str, Any]:
    """``classes``, and the goodput of all requests where any class has objectives.

    ``columns`` include ``class_index``; ``gaps_of`` gives the token gaps of requests where its
    argument is true. Every class is measured over the whole window, so rates of classes add up.
    """
    rows, good, has_objectives = [], 0, False
    for index, each in enumerate(classes):
        of_class = window.counted & (columns["class_index"] == index)
        own = replace(window, counted=of_class, n_counted=int(of_class.sum()))
        limits = each.goodput or measurement.goodput
        objectives = {str(name): limit for name, limit in limits.items()}
        has_objectives = has_objectives or bool(objectives)
        good += int(metrics.good_requests(columns, own.counted, objectives).sum())
        body = metrics.summarise(
            columns,
            own,
            gaps_of(own.counted & (columns["status"] == COMPLETED)),
            percentiles=measurement.metric_percentiles,
            objectives_ms=objectives,
        )
        rows.append({"name": each.name, "counted": own.n_counted, "goodput": objectives, **body})
    if not has_objectives:
        return {"classes": rows}
    return {"classes": rows, **metrics.goodput(good, window)}
