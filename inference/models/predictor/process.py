"""Process that runs the models: `python -m inference.models.predictor.process DESCRIPTOR`.

`client.PredictorProcess` starts it and holds the other end of the socket pair. The process ends when that end is closed.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import InferenceError
from inference.models.loading import LoadedModel, load_models
from inference.models.predictor.arena import SlotArena, padded_sizes
from inference.models.predictor.batch_plan import measure_costs, plan_batches, run_once
from inference.models.predictor.custom_code import ModelCode
from inference.models.predictor.protocol import (
    CustomResult,
    Failed,
    Load,
    Loaded,
    LoadModel,
    Predict,
    Predicted,
    Progress,
    Ready,
)
from inference.runtime.heap import freeze_heap
from inference.runtime.parent_watch import live_for_parent
from inference.runtime.public_text import public_exception


class ServedModel:
    """Loaded model with its arena, the buffer of its batches, and the chunk sizes of a batch."""

    def __init__(self, load: LoadModel, sizes: tuple[int, ...], model: LoadedModel) -> None:
        self.name = load.spec.name
        self._arena = SlotArena(load.spec.image_input, load.slots, load.descriptor)
        self._code = ModelCode.load(load.spec)
        #: the graph's inputs, by slot: the arena's images, or the results of the model's code for them
        self._inputs: NDArray[Any] = self._arena.images
        if load.spec.has_preprocess:
            self._inputs = np.zeros((sizes[-1], *load.spec.input.array_shape), load.spec.input.numpy_dtype)
        self._batch: NDArray[Any] = np.zeros((sizes[-1], *load.spec.input.array_shape), load.spec.input.numpy_dtype)
        self._model = model
        self._cost_ms = self._measure(sizes)
        self._plans = plan_batches(self._cost_ms, sizes[-1])

    def loaded(self) -> Loaded:
        quickest = max(size * 1000 / cost_ms for size, cost_ms in self._cost_ms.items())
        model, cost_ms = self._model, self._cost_ms
        return Loaded(
            self.name, model.output_size, cost_ms[1], model.runtime, model.reason, quickest, model.output_step, cost_ms=cost_ms
        )

    def _measure(self, sizes: tuple[int, ...]) -> dict[int, float]:
        def run(size: int) -> object:
            return self._model.predict(self._batch[:size])

        run_once(run, sizes)
        return measure_costs(run, sizes)

    def answer(self, slots: tuple[int, ...]) -> tuple[NDArray[np.float32], tuple[CustomResult, ...]]:
        """Predict the images in `slots`, and run the model's code if it has any; returns values, and the code's results."""
        if self._code is None:
            return self.predict(slots), ()
        failures: dict[int, Failed] = {}
        if self._inputs is not self._arena.images:
            failures = self._code.preprocess([self._arena.images[slot] for slot in slots], self._inputs)
            slots = tuple(range(len(slots)))
        values = self.predict(slots)
        return values, self._code.postprocess(values, failures)

    def predict(self, slots: tuple[int, ...]) -> NDArray[np.float32]:
        """Predict the inputs in `slots`, (len(slots), output_size) float32, in warmed-up chunk sizes; padding is removed."""
        answers, begin = [], 0
        for size in self._plans[len(slots)]:
            answers.append(self._predict_padded(slots[begin : begin + size], size))
            begin += size
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _predict_padded(self, slots: tuple[int, ...], size: int) -> NDArray[np.float32]:
        count = len(slots)
        np.take(self._inputs, slots, axis=0, out=self._batch[:count], mode="clip")  # the mode "raise" would copy twice
        predictions = self._model.predict(self._batch[:size])
        if predictions.shape != (size, self._model.output_size):
            raise ValueError(f"the model returned predictions of shape {predictions.shape} for {size} images")
        return predictions[:count]


def serve(connection: Connection) -> None:
    """Load the models of the first message, then answer until the other end is closed."""
    load: Load = connection.recv()
    if load.log is not None:
        load.log.apply("predictor")
    try:
        models = _load_all(load, lambda message: connection.send(Progress(message)))
    except InferenceError as error:
        connection.send(Failed(error.detail, error.public))
        return
    except Exception as error:  # noqa: BLE001 the worker must get an answer for any error
        connection.send(Failed(f"{type(error).__name__}: {error}", public_exception(error)))
        return
    freeze_heap()
    connection.send(Ready(tuple(model.loaded() for model in models.values())))
    while True:
        call: Predict = connection.recv()
        _answer(connection, models[call.model], call.slots)


def _load_all(load: Load, report: Callable[[str], None]) -> dict[str, ServedModel]:
    sizes = padded_sizes(load.max_batch_size)
    models = load_models([model.spec for model in load.models], sizes, load.gpu, load.gpu_locks, report)
    return {model.spec.name: ServedModel(model, sizes, models[model.spec.name]) for model in load.models}


def _answer(connection: Connection, model: ServedModel, slots: tuple[int, ...]) -> None:
    began = time.perf_counter()
    try:
        predictions, custom = model.answer(slots)
    except Exception as error:  # noqa: BLE001 a model may raise anything; the worker tries the images one by one
        connection.send(Failed(f"{type(error).__name__}: {error}", public_exception(error)))
        return
    connection.send(Predicted((time.perf_counter() - began) * 1000, custom))
    connection.send_bytes(np.ascontiguousarray(predictions, "<f4").data)


def main() -> None:
    live_for_parent()
    with contextlib.suppress(EOFError, ConnectionError):  # the worker has gone
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
