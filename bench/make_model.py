"""`python -m bench.make_model tiny|mobilenetv2 FILE`: create a model with random weights, the same each time."""

from __future__ import annotations

import sys

import keras  # type: ignore[import-untyped]
from keras import layers


def tiny() -> keras.Model:
    """Create a small CNN at 32x32: nearly all the time of a request is overhead."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def mobilenetv2() -> keras.Model:
    """Create MobileNetV2, for real work: 1,000 classes at 224x224."""
    return keras.applications.MobileNetV2(weights=None)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    {"tiny": tiny, "mobilenetv2": mobilenetv2}[sys.argv[1]]().save(sys.argv[2])
