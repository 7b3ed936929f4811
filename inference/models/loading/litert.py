"""Graphs of LiteRT, which on a CPU can be several times as fast as TensorFlow's own runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
from numpy.typing import NDArray


class LiteGraph:
    """A graph with one input, for batches of any size that it allows. One call at a time.

    Args:
        model: a *.tflite file, or its content. A file is mapped into memory, and must not be changed in place.
        threads: number of threads that compute.
    """

    def __init__(self, model: bytes | Path, threads: int) -> None:
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        self._interpreter = Interpreter(**source, num_threads=threads)
        #: descriptions of the tensors, as LiteRT returns them
        self.inputs: Sequence[Mapping[str, Any]] = self._interpreter.get_input_details()
        self.outputs: Sequence[Mapping[str, Any]] = self._interpreter.get_output_details()
        self._batch_size = 0

    def __call__(self, batch: NDArray[Any], output: int = 0) -> NDArray[Any]:
        """Run `batch`, (n, …) in the input's dtype, and return an output by its number, (n, …) in its dtype."""
        index = self.inputs[0]["index"]
        if len(batch) != self._batch_size:
            self._batch_size = 0  # if this size fails, the next batch of the last one needs its tensors again
            self._interpreter.resize_tensor_input(index, batch.shape)
            self._interpreter.allocate_tensors()
            self._batch_size = len(batch)
        self._interpreter.set_tensor(index, batch)
        self._interpreter.invoke()
        values: NDArray[Any] = np.asarray(self._interpreter.get_tensor(self.outputs[output]["index"]))
        return values

    @property
    def input_shapes(self) -> Sequence[tuple[int | None, ...]]:
        """Shapes of the inputs with the batch dimension; None for any size."""
        shapes = [each["shape_signature"] if len(each["shape_signature"]) else each["shape"] for each in self.inputs]
        return [tuple(None if size < 0 else int(size) for size in shape) for shape in shapes]

    @property
    def output_names(self) -> Sequence[str]:
        """Names of the outputs: those of the file's only signature, or of the tensors if it has none or several."""
        signatures = list(self._interpreter.get_signature_list())
        named = self._interpreter.get_signature_runner(signatures[0]).get_output_details() if len(signatures) == 1 else {}
        by_index = {tensor["index"]: name for name, tensor in named.items()}
        return [by_index.get(tensor["index"], tensor["name"]) for tensor in self.outputs]

    def producers(self) -> Mapping[int, tuple[str, int]]:
        """Return type and first operand of the operation that returns a tensor, by the tensor's index."""
        operations = self._interpreter._get_ops_details()  # noqa: SLF001 no other interface has them
        return {
            int(index): (operation["op_name"], int(operation["inputs"][0]) if len(operation["inputs"]) else -1)
            for operation in operations
            if operation["op_name"] != "DELEGATE"  # it repeats the outputs of the operations that it runs
            for index in operation["outputs"]
        }
