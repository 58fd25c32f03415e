"""What several simulations have in common, made once: models, prices, memory plans, requests.

Everything is kept by what it depends on and nothing else, so a simulation gives the same result
with shared inputs as with its own. Safe to use from several threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llm_inference_simulator.capacity import plan_memory
from llm_inference_simulator.catalog import load_model
from llm_inference_simulator.errors import SimulatorError
from llm_inference_simulator.pools import ResolvedPool, resolve_pools
from llm_inference_simulator.workload import build_workload

if TYPE_CHECKING:
    from llm_inference_simulator.capacity import MemoryPlan
    from llm_inference_simulator.catalog import ModelSpec, XpuSpec
    from llm_inference_simulator.config import (
        EngineConfig,
        PerformanceModelConfig,
        SimulatorConfig,
    )
    from llm_inference_simulator.performance_models import BasePerformanceModel
    from llm_inference_simulator.performance_models.factory import Calibration
    from llm_inference_simulator.workload import Workload
    from llm_inference_simulator.workload.traces import Trace, TraceLimits
    from llm_inference_simulator.workload_config import WorkloadConfig

MOST_KEPT_ROWS = 5_000_000
"""Requests of all kept workloads or traces together (about 150 MB); the oldest go first."""

V = TypeVar("V")


class _Memo(Generic[V]):
    """Values by key, made one at a time; an error of ours is a value too."""

    def __init__(self, size: Callable[[V], int] | None = None) -> None:
        self._kept: OrderedDict[Hashable, V | SimulatorError] = OrderedDict()
        self._lock = threading.Lock()
        self._size = size

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            else:
                try:
                    self._kept[key] = make()
                except SimulatorError as error:
                    self._kept[key] = error
                self._shrink()
            found = self._kept[key]
        if isinstance(found, SimulatorError):
            # A new one each time: a raised exception remembers where it was raised.
            raise type(found)(*found.args)
        return found

    def _shrink(self) -> None:
        if self._size is None:
            return
        sizes = [0 if isinstance(v, SimulatorError) else self._size(v) for v in self._kept.values()]
        total = sum(sizes)
        for size in sizes[:-1]:
            if total <= MOST_KEPT_ROWS:
                return
            self._kept.popitem(last=False)
            total -= size


class SharedInputs:
    """Models, calibrations, resolved pools and workloads, for as long as the object lives.

    Files that change meanwhile are not read again.
    """

    def __init__(self) -> None:
        self._models: _Memo[ModelSpec] = _Memo()
        self._parameters: _Memo[int] = _Memo()
        self._calibrations: _Memo[Calibration | None] = _Memo()
        self._prices: _Memo[BasePerformanceModel] = _Memo()
        self._plans: _Memo[MemoryPlan] = _Memo()
        self._pools: _Memo[tuple[ResolvedPool, ...]] = _Memo()
        self._traces: _Memo[Trace] = _Memo(len)
        self._workloads: _Memo[Workload] = _Memo(len)

    def model(self, name: str) -> ModelSpec:
        """:func:`load_model`."""
        return self._models.get(name, lambda: load_model(name))

    def parameter_count(self, name: str) -> int:
        """Parameters of :meth:`model`, which takes as long as a short simulation to count."""
        return self._parameters.get(name, lambda: self.model(name).parameter_count)

    def pools(
        self, config: SimulatorConfig, performance_model: BasePerformanceModel | None = None
    ) -> tuple[ResolvedPool, ...]:
        """:func:`resolve_pools` of a configuration; not kept where the user gives the prices."""
        model = self.model(config.model)
        if performance_model is not None:
            return resolve_pools(config, model, performance_model)
        key = (
            config.model,
            config.xpu,
            config.cluster,
            config.engine,
            config.transfer,
            config.performance,
            config.pricing,
        )
        return self._pools.get(
            key, lambda: resolve_pools(config, model, None, self._price, self._plan_memory)
        )

    def _plan_memory(
        self,
        model: ModelSpec,
        xpu: XpuSpec,
        engine: EngineConfig,
        tensor_parallel_size: int,
        **options: int,
    ) -> MemoryPlan:
        """:func:`plan_memory`; what would make a model fit takes longer than most simulations."""
        numbers = (tensor_parallel_size, *sorted(options.items()))
        key = (model.name, model.source, repr(xpu), engine, *numbers)
        return self._plans.get(
            key, lambda: plan_memory(model, xpu, engine, tensor_parallel_size, **options)
        )

    def workload(self, config: WorkloadConfig, seed: int) -> Workload:
        """:func:`build_workload`; equal arguments give the same columns."""
        key = (repr(config), seed)
        return self._workloads.get(key, lambda: build_workload(config, seed, self._trace))

    def _trace(self, path: Path, trace_format: str, limits: TraceLimits) -> Trace:
        from llm_inference_simulator.workload.traces import load_trace

        key = (path, trace_format, limits)
        return self._traces.get(key, lambda: load_trace(path, trace_format, limits))

    def _calibration(self, performance: PerformanceModelConfig, xpu: XpuSpec) -> Calibration | None:
        from llm_inference_simulator.performance_models.factory import find_calibration_of

        key = (performance, xpu.name)
        return self._calibrations.get(key, lambda: find_calibration_of(performance, xpu))

    def _price(
        self,
        performance: PerformanceModelConfig,
        model: ModelSpec,
        xpu: XpuSpec,
        tensor_parallel_size: int,
        engine: EngineConfig,
        **options: Any,
    ) -> BasePerformanceModel:
        """``create_performance_model``, kept by what prices depend on."""
        from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
        from llm_inference_simulator.performance_models.factory import (
            PRICED_ENGINE_FIELDS,
            create_performance_model,
        )

        calibration = self._calibration(performance, xpu)
        if calibration is None or isinstance(calibration, KernelCalibration):
            # The model is built from these settings alone, so it cannot depend on the others.
            priced = {name: getattr(engine, name) for name in PRICED_ENGINE_FIELDS}
            engine = type(engine).model_construct(**priced)
        key = (
            performance,
            model.name,
            model.source,
            # A user's file may give a name of the catalogue other figures.
            repr(xpu),
            tensor_parallel_size,
            engine,
            *sorted(options.items()),
        )
        return self._prices.get(
            key,
            lambda: create_performance_model(
                performance,
                model,
                xpu,
                tensor_parallel_size,
                engine,
                find_calibration=self._calibration,
                **options,
            ),
        )
