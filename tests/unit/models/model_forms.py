"""A small model, saved in every form."""

from __future__ import annotations

from pathlib import Path

import keras


def classifier() -> keras.Model:
    return keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])


def save_all_forms(folder: Path) -> None:
    """Save the model as m.keras, m.h5, m.weights.h5 and the SavedModel `saved`."""
    model = classifier()
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    model.save_weights(folder / "m.weights.h5")
    model.export(folder / "saved", verbose=False)
