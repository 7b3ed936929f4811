"""Model of all peers, with the same function and padded batch sizes as in the service's own predictor.

It runs in the peers' environments, so it needs only TensorFlow, NumPy and Pillow. Environment variables:

    PEER_MODEL_FILE     a .keras file that takes (n, H, W, 3) and returns (n, classes)
    PEER_CROP_FRACTION  kept part of an encoded photo's central square, which is resized to (H, W);
                        empty: images are (H, W, 3) arrays of uint8
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

#: Batch sizes up to MAX_BATCH_SIZE.
_PADDED_SIZES = (1, 2, 4, 8, 16, 32)


class Model:
    """Loaded and compiled model, warmed up at each padded batch size."""

    def __init__(self) -> None:
        network = keras.saving.load_model(os.environ["PEER_MODEL_FILE"], compile=False)
        self._crop_fraction = float(os.environ["PEER_CROP_FRACTION"] or 0)
        self._shape = network.input_shape[1:]
        self._classify = tf.function(
            lambda images: network(tf.cast(images, tf.float32), training=False),
            input_signature=[tf.TensorSpec((None, *self._shape), tf.uint8)],
        )
        for size in _PADDED_SIZES:
            self._classify(tf.zeros((size, *self._shape), tf.uint8))

    def predict(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Predict at most MAX_BATCH_SIZE images; returns an answer for each."""
        batch = np.zeros((next(size for size in _PADDED_SIZES if size >= len(images)), *self._shape), np.uint8)
        for slot, image in zip(batch, images, strict=False):
            slot[:] = self._decode(image)
        return [_create_answer(prediction) for prediction in self._classify(tf.constant(batch)).numpy()[: len(images)]]

    def _decode(self, image: bytes) -> NDArray[np.uint8]:
        if not self._crop_fraction:
            return np.frombuffer(image, np.uint8).reshape(self._shape)
        photo = Image.open(io.BytesIO(image)).convert("RGB")
        side = round(min(photo.size) * self._crop_fraction)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        height, width, _ = self._shape
        return np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + side, top + side)))


def _create_answer(prediction: NDArray[np.float32]) -> dict[str, Any]:
    best = int(prediction.argmax())
    return {"response": {"class": best, "confidence_level": float(prediction[best]), "prediction": prediction.tolist()}}
