"""Concurrent chunks of a batch, each in an interpreter of LiteRT with threads of its own.

The threads of one interpreter wait for each other after every operation of the graph. Under load, when other processes take
some of the cores, each of these waits is for the slowest thread. Interpreters with one thread wait for each other only at the
end of the batch, and one that is slow gets fewer chunks. Each also needs memory for its own chunk only, not for the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.models.loading.litert import LiteGraph

#: images in a chunk, at most: those of larger chunks do not stay in the processor's caches from one operation to the next
_CHUNK_IMAGES = 2
#: interpreters at most, because each has its own copy of the weights
_MAX_INTERPRETERS = 8


class ConcurrentGraph:
    """A graph like `LiteGraph` that runs the chunks of a large batch concurrently, unless its batch size is fixed.

    One call at a time.

    Args:
        model: a *.tflite file, or its content. A file is mapped into memory, and must not be changed in place.
        threads: number of threads that compute.
    """

    def __init__(self, model: bytes | Path, threads: int) -> None:
        #: the interpreter with all threads
        self.whole = LiteGraph(model, threads)
        #: shapes of the inputs, see `LiteGraph.input_shapes`
        self.input_shapes = self.whole.input_shapes
        count = min(threads, _MAX_INTERPRETERS)
        self._interpreters = [LiteGraph(model, threads // count) if count > 1 else self.whole for _ in range(count)]
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="chunk")

    def __call__(self, batch: NDArray[Any], output: int = 0) -> NDArray[Any]:
        """Run `batch`, (n, …) in the input's dtype, and return an output by its number, (n, …) in its dtype.

        One interpreter with all threads runs a batch that has less than a full chunk for each of the others.
        """
        if self.input_shapes[0][0] is not None or len(batch) < len(self._interpreters) * _CHUNK_IMAGES:
            return self.whole(batch, output)
        chunks = [batch[begin : begin + _CHUNK_IMAGES] for begin in range(0, len(batch), _CHUNK_IMAGES)]
        numbered = iter(enumerate(chunks))
        runs = [self._pool.submit(_run_chunks, graph, numbered, output) for graph in self._interpreters]
        wait(runs)  # all of them, even if one fails: the caller overwrites the batch, and the next needs all interpreters
        answers: dict[int, NDArray[Any]] = {}
        for run in runs:
            answers |= run.result()
        return np.concatenate([answers[number] for number in range(len(chunks))])


def _run_chunks(graph: LiteGraph, numbered: Iterator[tuple[int, NDArray[Any]]], output: int) -> dict[int, NDArray[Any]]:
    """Run chunks until none is left, and return the answers by the chunks' numbers. Other threads take from `numbered` too."""
    return {number: graph(chunk, output) for number, chunk in numbered}
