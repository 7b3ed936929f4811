"""One predictor process for each device that a worker's models run on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from inference.domain import ModelRef
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import BatchPredictions, PredictorProcess
from inference.models.predictor.device_lock import gpu_index
from inference.models.predictor.protocol import Loaded
from inference.models.spec import ModelSpec
from inference.settings import GpuSettings


class DevicePredictors:
    """Implementation of `versioned_predictor.Process` for models on several devices: models on one device share a process."""

    def __init__(
        self,
        models: Mapping[str, tuple[ModelSpec, SlotArena]],
        *,
        max_batch_size: int,
        predict_timeout_s: float,
        load_timeout_s: float,
        gpu: GpuSettings,
    ) -> None:
        by_device: dict[int | None, dict[str, tuple[ModelSpec, SlotArena]]] = defaultdict(dict)
        for name, (spec, arena) in models.items():
            by_device[gpu_index(spec.device)][name] = (spec, arena)
        self._by_model: dict[str, PredictorProcess] = {}
        self._processes: list[PredictorProcess] = []
        for group in by_device.values():
            process = PredictorProcess(
                group,
                max_batch_size=max_batch_size,
                predict_timeout_s=predict_timeout_s,
                load_timeout_s=load_timeout_s,
                gpu=gpu,
            )
            self._processes.append(process)
            self._by_model |= dict.fromkeys(group, process)

    @property
    def references(self) -> Mapping[str, ModelRef]:
        return {name: model for process in self._processes for name, model in process.references.items()}

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        return {name: model for process in self._processes for name, model in process.loaded.items()}

    def start(self, should_stop: Callable[[], bool]) -> bool:
        """Start the processes that are down, like `PredictorProcess.start`; if one fails, the others are stopped again."""
        down = [process for process in self._processes if not process.is_running]
        started = False
        try:
            started = all(process.start(should_stop) for process in self._processes)
        finally:
            if not started:
                for process in down:
                    process.stop()
        return started

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions:
        return self._by_model[model].predict(model, slots)

    def stop(self) -> None:
        for process in self._processes:
            process.stop()

    def retire(self) -> None:
        """End the processes after their running calls, like `PredictorProcess.retire`."""
        for process in self._processes:
            process.retire()
