"""The bounds that the operations of a graph give its values, for any image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from keras import layers

from inference.models.loading.outputs import Bounds
from inference.models.loading.tensorflow.bounds import output_bounds

SHAPE = (12, 10, 3)

Call = Callable[[tf.Tensor], tf.Tensor]


def bounds_of(call: Call, *, xla: bool | None = None) -> Bounds:
    signature = [tf.TensorSpec((None, *SHAPE), tf.float32)]
    return output_bounds(tf.function(call, signature, jit_compile=xla, autograph=False).get_concrete_function())


def network(*head: layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3), *head])


def dense(activation: Any = "sigmoid", units: int = 1, **options: Any) -> keras.Model:
    return network(layers.GlobalAveragePooling2D(), layers.Dense(units, activation=activation, **options))


def several(combine: Callable[[list[keras.KerasTensor]], keras.KerasTensor]) -> keras.Model:
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, combine([dense()(inputs) for _ in range(3)]))


def classes(call: Call) -> Call:
    """Give what `call` makes of probabilities of five classes."""
    model = dense("softmax", 5)
    return lambda images: call(model(images))


def probability(call: Call) -> Call:
    model = dense()
    return lambda images: call(model(images))


def logit(call: Call) -> Call:
    model = dense(None)
    return lambda images: call(model(images))


def saved(model: keras.Model, folder: Path, *, exported: bool) -> Call:
    if exported:
        model.export(folder, format="tf_saved_model", verbose=False)
    else:
        tf.saved_model.save(model, str(folder))
    loaded = tf.saved_model.load(str(folder))
    return lambda images: tf.nest.flatten(loaded.signatures["serving_default"](images))[0]


PROBABILITIES: dict[str, Callable[[], Call]] = {
    "sigmoid": dense,
    "hard sigmoid": lambda: dense("hard_sigmoid"),
    "layer of its own": lambda: network(layers.Flatten(), layers.Dense(1), layers.Activation("sigmoid")),
    "float16": lambda: dense(dtype="mixed_float16"),
    "bfloat16": lambda: dense(dtype="mixed_bfloat16"),
    "reshaped": lambda: network(layers.Conv2D(1, (10, 8), activation="sigmoid"), layers.Flatten(), layers.Reshape((1,))),
    "dropout": lambda: network(layers.Flatten(), layers.Dense(1, activation="sigmoid"), layers.Dropout(0.5)),
    "nested": lambda: keras.Sequential([keras.Input(SHAPE), keras.Sequential([dense()])]),
    "mean of a map": lambda: network(layers.Conv2D(1, 3, activation="sigmoid"), layers.GlobalAveragePooling2D()),
    "greatest of a map": lambda: network(
        layers.Conv2D(1, 3, activation="sigmoid"), layers.AveragePooling2D(2), layers.GlobalMaxPooling2D()
    ),
    "several in time": lambda: network(
        layers.Reshape((8, 40)), layers.TimeDistributed(layers.Dense(1, activation="sigmoid")), layers.GlobalAveragePooling1D()
    ),
    "mean of models": lambda: several(layers.Average()),
    "greatest of models": lambda: several(layers.Maximum()),
    "product of models": lambda: several(layers.Multiply()),
    "weighted": lambda: several(lambda found: 0.2 * found[0] + 0.3 * found[1] + 0.5 * found[2]),
    "stacked": lambda: several(lambda found: keras.ops.mean(keras.ops.stack(found), axis=0)),
    "concatenated": lambda: several(lambda found: keras.ops.mean(keras.ops.concatenate(found), axis=1, keepdims=True)),
    "scaled tanh": lambda: network(layers.Flatten(), layers.Dense(1, activation="tanh"), layers.Rescaling(0.5, 0.5)),
    "complement": lambda: probability(lambda p: 1 - p),
    "negated": lambda: probability(lambda p: -p + 1),
    "added as by TensorFlow 1": lambda: probability(lambda p: tf.raw_ops.Add(x=p, y=p) / 2),
    "clipped": lambda: probability(lambda p: tf.clip_by_value(p, 1e-6, 1 - 1e-6)),
    "threshold": lambda: probability(lambda p: tf.where(p > 0.5, p, 0.0)),
    "call": lambda: probability(tf.function(tf.identity)),
    "one class": lambda: classes(lambda p: p[:, 1:2]),
    "one class as a vector": lambda: classes(lambda p: p[:, 1]),
    "other classes": lambda: classes(lambda p: 1 - tf.gather(p, [1], axis=1)),
    "sum of classes": lambda: classes(lambda p: tf.reduce_sum(p[:, 2:], axis=1, keepdims=True)),
    "split": lambda: classes(lambda p: tf.split(p, 5, axis=1)[1]),
    "split by sizes": lambda: classes(lambda p: tf.split(p, [1, 4], axis=1)[0]),
}


def activations(*names: str) -> dict[str, Callable[[], Call]]:
    return {name: lambda name=name: dense(name) for name in names}


OTHERS: dict[str, Callable[[], Call]] = {
    **activations("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hard_silu", "tanh"),
    **activations("hard_tanh", "softsign", "softplus", "exponential", "soft_shrink", "hard_shrink", "tanh_shrink", "log_sigmoid"),
    "mean of logits": lambda: network(layers.Conv2D(1, 3), layers.GlobalAveragePooling2D()),
    "greatest of logits": lambda: network(layers.Conv2D(1, 3), layers.GlobalMaxPooling2D()),
    "pooled logits": lambda: network(layers.SeparableConv2D(1, 3), layers.AveragePooling2D((8, 6)), layers.Flatten()),
    "einsum": lambda: network(layers.Flatten(), layers.EinsumDense("ab,bc->ac", 1)),
    "LSTM": lambda: network(layers.Reshape((8, 40)), layers.LSTM(1)),
    "GRU": lambda: network(layers.Reshape((8, 40)), layers.GRU(1)),
    "clipped by ReLU": lambda: network(layers.Flatten(), layers.Dense(1), layers.ReLU(max_value=1)),
    "clipped": lambda: logit(lambda x: tf.clip_by_value(x, 0, 1)),
    "normalised": lambda: network(layers.Flatten(), layers.Dense(1), layers.BatchNormalization()),
    "one of several logits": lambda: network(layers.Flatten(), layers.Dense(3), layers.Lambda(lambda x: x[:, :1] / 3)),
    "call": lambda: logit(tf.function(tf.identity)),
    "twice a probability": lambda: probability(lambda p: p * 2),
    "odds": lambda: probability(lambda p: p / (1 - p)),
    "log odds": lambda: probability(tf.math.log),
    "linear after a sigmoid": lambda: network(layers.Flatten(), layers.Dense(4, activation="sigmoid"), layers.Dense(1)),
    "sum of sigmoids": lambda: probability(lambda p: tf.reduce_sum(p, axis=1)),
    "brightness": lambda: lambda images: tf.reduce_mean(images / 255, axis=[1, 2, 3]),
}


def is_probability(bounds: Bounds) -> bool:
    return bounds.low >= 0 and bounds.high <= 1 + 1e-6


@pytest.mark.parametrize("name", PROBABILITIES)
def test_what_is_a_probability_for_any_image(name: str) -> None:
    assert is_probability(bounds_of(PROBABILITIES[name]()))


@pytest.mark.parametrize("name", OTHERS)
def test_what_may_be_something_else(name: str) -> None:
    assert not is_probability(bounds_of(OTHERS[name]()))


@pytest.mark.parametrize("exported", [True, False])
@pytest.mark.parametrize("xla", [True, None])
@pytest.mark.parametrize("activation", ["sigmoid", "hard_sigmoid", "linear", "silu"])
def test_a_saved_model_calls_functions_in_functions(tmp_path: Path, exported: bool, xla: bool | None, activation: str) -> None:
    call = saved(dense(activation), tmp_path, exported=exported)
    assert is_probability(bounds_of(call, xla=xla)) == ("sigmoid" in activation)


def test_the_operations_it_is_known_from_are_said() -> None:
    assert bounds_of(dense("linear")).sources == {"MatMul"}
    assert bounds_of(dense("sigmoid")).sources == {"Sigmoid"}
    assert bounds_of(probability(lambda p: p * 2 - 0.5)) == Bounds(-0.5, 1.5, frozenset({"Sigmoid"}))
