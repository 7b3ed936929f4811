"""Chunks of a batch run concurrently, and answer in the order of the images."""

from __future__ import annotations

import threading
import time
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from inference.models.loading import concurrent_graph
from inference.models.loading.concurrent_graph import ConcurrentGraph
from inference.models.loading.litert import LiteGraph


@pytest.fixture(scope="module")
def content() -> bytes:
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((6, 5, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(7)])
    converted: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    return converted


@pytest.mark.parametrize("threads", [1, 2, 3, 20])
def test_a_batch_of_any_size_answers_as_one_interpreter_does(content: bytes, threads: int) -> None:
    images = np.random.default_rng(6).random((70, 6, 5, 3), np.float32)
    expected = LiteGraph(content, 1)(images)
    assert np.ptp(expected, axis=0).min() > 0.01  # the images are told apart
    graph = ConcurrentGraph(content, threads)
    for size in (1, 70, 7, 8, 33, 2, 32):
        np.testing.assert_allclose(graph(images[:size]), expected[:size], atol=1e-5)


class Meeting:
    """A graph whose chunks wait until as many run as there are interpreters."""

    barrier = threading.Barrier(2)
    input_shapes = ((None, 1),)

    def __init__(self, _model: bytes, threads: int) -> None:
        self.threads = threads

    def __call__(self, batch: NDArray[Any], _output: int) -> NDArray[Any]:
        if len(batch) == 2:
            self.barrier.wait(20)
        return np.full((len(batch), 1), self.threads, np.float32)


def test_chunks_run_at_the_same_time_each_with_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent_graph, "LiteGraph", Meeting)
    graph = ConcurrentGraph(b"", 2)
    assert graph(np.zeros((32, 1))).tolist() == [[1.0]] * 32
    assert graph(np.zeros((3, 1))).tolist() == [[2.0]] * 3


def test_a_fixed_batch_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent_graph, "LiteGraph", Meeting)
    monkeypatch.setattr(Meeting, "input_shapes", ((16, 1),))
    assert ConcurrentGraph(b"", 2)(np.zeros((16, 1))).tolist() == [[2.0]] * 16


class Failing:
    """A graph that refuses the image 0, and takes long for others."""

    input_shapes = ((None, 1),)
    running = 0

    def __init__(self, _model: bytes, threads: int) -> None:
        pass

    def __call__(self, batch: NDArray[Any], _output: int) -> NDArray[Any]:
        Failing.running += 1
        if not batch.all():
            Failing.running -= 1
            raise RuntimeError("no zeros")
        time.sleep(0.2)
        Failing.running -= 1
        return batch


@pytest.mark.parametrize("threads", [1, 2])
def test_no_chunk_runs_any_more_once_a_failure_is_raised(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """The images of a chunk that goes on would change under it, and its interpreter may be the one of the next batch."""
    monkeypatch.setattr(concurrent_graph, "LiteGraph", Failing)
    images = np.arange(12, dtype=np.float32).reshape(12, 1)
    with pytest.raises(RuntimeError, match="no zeros"):
        ConcurrentGraph(b"", threads)(images)
    assert Failing.running == 0
