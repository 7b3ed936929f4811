"""Train the two models of configurations/config.json: small VGGs in the form of ROHE's Inference Service, Keras 2's JSON and H5.

    pip install --no-deps tf-keras==2.21.0    # Keras 2; nothing else here needs it
    python models/digits-vgg/train.py

They take pixels (n, 32, 32, 3) from 0 to 255 (scikit-learn's digits, each pixel a square of 4x4) and give softmax
probabilities (n, 10). Each is written only if it is right on more than 97 % of the digits that it was not trained on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import

import numpy as np
import tf_keras
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).parent
#: Folder of each model, and the channels of its three blocks.
MODELS = {"vgg": (8, 16, 32), "vgg_0": (8, 12, 24)}
SEED = 20
HELD_OUT_SHARE = 0.25
REQUIRED_ACCURACY = 0.97
EPOCHS = 30


def pictures() -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(n, 32, 32, 3) float32, 0 to 255, and their digits."""
    digits = load_digits()
    squares = np.kron(digits.images * (255 / 16), np.ones((1, 4, 4)))
    return np.repeat(squares[..., None], 3, axis=-1).astype(np.float32), digits.target


def build(name: str, channels: tuple[int, ...]) -> tf_keras.Model:
    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((32, 32, 3)), layers.Rescaling(1 / 255)], name=name)
    for count in channels:
        model.add(layers.Conv2D(count, 3, padding="same", activation="relu"))
        model.add(layers.Conv2D(count, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    return model


def main() -> int:
    images, digits = pictures()
    seen, held_out, labels, held_out_labels = train_test_split(
        images, digits, test_size=HELD_OUT_SHARE, random_state=SEED, stratify=digits
    )
    for name, channels in MODELS.items():
        tf_keras.utils.set_random_seed(SEED)
        model = build(name, channels)
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
        model.fit(seen, labels, batch_size=32, epochs=EPOCHS, verbose=0)
        accuracy = float(np.mean(model.predict(held_out, verbose=0).argmax(axis=1) == held_out_labels))
        print(f"{name}: {model.count_params()} parameters, held-out accuracy {accuracy:.2%}")
        if accuracy <= REQUIRED_ACCURACY:
            print(f"not written: more than {REQUIRED_ACCURACY:.0%} is required", file=sys.stderr)
            return 1
        folder = FOLDER / name
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text(model.to_json(indent=1) + "\n", encoding="utf-8")
        model.save_weights(folder / "model.h5")
    return 0


if __name__ == "__main__":
    sys.exit(main())
