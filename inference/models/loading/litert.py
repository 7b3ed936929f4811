"""Graphs of LiteRT, which on a CPU can be several times as fast as TensorFlow's own runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
from numpy.typing import NDArray


class LiteGraph:
    """A graph with one input and one output, for batches of any size. One call at a time.

    Args:
        model: a *.tflite file, or its content. A file is mapped into memory, and must not be changed in place.
        threads: number of threads that compute.
    """

    def __init__(self, model: bytes | Path, threads: int) -> None:
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        self._interpreter = Interpreter(**source, num_threads=threads)
        ((self._input,), (self._output,)) = (
            [tensor["index"] for tensor in tensors]
            for tensors in (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        )
        self._batch_size = 0

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if len(batch) != self._batch_size:
            self._interpreter.resize_tensor_input(self._input, batch.shape)
            self._interpreter.allocate_tensors()
            self._batch_size = len(batch)
        self._interpreter.set_tensor(self._input, batch)
        self._interpreter.invoke()
        predictions: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return predictions
