"""Train the digits model on scikit-learn's handwritten digits, in seconds on a CPU.

    python models/digits/train.py [--output FILE] [--epochs N]

The model takes float32 pixels (n, 8, 8, 1) from 0 to 255 (scikit-learn's 0 to 16, scaled) and gives softmax
probabilities (n, 10). It is written only if it is right on more than 97 % of the digits that it was not trained on;
otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

DEFAULT_OUTPUT = Path(__file__).with_name("digits.keras")
SEED = 20
HELD_OUT_SHARE = 0.25
REQUIRED_ACCURACY = 0.97
EPOCHS = 30
CLASSES = 10
PIXEL_RANGE = 255.0
DIGITS_RANGE = 16.0  #: of scikit-learn's values


class Split(NamedTuple):
    """Images are (n, 8, 8, 1) float32, 0 to 255; labels (n,) integers."""

    images: NDArray[np.float32]
    labels: NDArray[Any]
    held_out_images: NDArray[np.float32]
    held_out_labels: NDArray[Any]


def load_split() -> Split:
    """The digits, cut the same way every time: the held-out ones were never seen in training."""
    digits = load_digits()
    pixels = (digits.images * (PIXEL_RANGE / DIGITS_RANGE)).astype(np.float32)[..., np.newaxis]
    images, held_out_images, labels, held_out_labels = train_test_split(
        pixels, digits.target, test_size=HELD_OUT_SHARE, random_state=SEED, stratify=digits.target
    )
    return Split(images, labels, held_out_images, held_out_labels)


def build_model() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            layers.Rescaling(1 / PIXEL_RANGE, name="rescaling"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="edges"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="strokes"),
            layers.MaxPooling2D(name="pooling"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="shapes"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(CLASSES, activation="softmax", name="probabilities"),
        ],
        name="digits",
    )


def train(split: Split, epochs: int) -> keras.Model:
    """A trained model, without its optimizer's state."""
    keras.utils.set_random_seed(SEED)
    model = build_model()
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy")
    model.fit(split.images, split.labels, batch_size=64, epochs=epochs, verbose=0)
    trained = build_model()
    trained.set_weights(model.get_weights())
    return trained


def held_out_accuracy(model: keras.Model, split: Split) -> float:
    predictions = np.asarray(model(split.held_out_images))
    return float(np.mean(predictions.argmax(axis=1) == split.held_out_labels))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the digits model and write it as a Keras file.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="default: %(default)s")
    options = parser.parse_args(arguments)
    split = load_split()
    model = train(split, options.epochs)
    accuracy = held_out_accuracy(model, split)
    print(f"held-out accuracy {accuracy:.2%} on {len(split.held_out_labels)} digits")
    if accuracy <= REQUIRED_ACCURACY:
        print(f"train.py: not written, more than {REQUIRED_ACCURACY:.0%} is required", file=sys.stderr)
        return 1
    model.save(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
