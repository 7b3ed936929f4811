"""Images of the model `digits` whose right answers are known beforehand, each unlike any other's."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from support.models import load_spec
from support.service import ROOT

#: Form field for `Digit.raw`.
METADATA = json.dumps({"shape": "8,8,1", "dtype": "float32"})
#: As many are there.
_COUNT = 500
#: How far the answers for two images are apart in at least one class, and how far one for the same image may be off: batches of
#: other sizes are rounded otherwise.
_APART = 0.02
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Digit:
    #: (8, 8) uint8
    pixels: NDArray[np.uint8]
    #: (10,) float32, as the model gives it
    prediction: NDArray[np.float32]

    @property
    def raw(self) -> bytes:
        return self.pixels.astype("<f4").tobytes()

    @cached_property
    def png(self) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG")
        return file.getvalue()

    def is_answer(self, prediction: list[float]) -> bool:
        """Whether this is the model's answer for this image, and so for no other."""
        return np.allclose(prediction, self.prediction, rtol=0, atol=TOLERANCE)


def distinct_digits(count: int) -> list[Digit]:
    """Pairs of digits laid over each other, of which the model is not sure; always the same ones, at most 500."""
    assert count <= _COUNT
    return _distinct_digits()[:count]


@cache
def _distinct_digits() -> list[Digit]:
    pixels = _blends(8 * _COUNT)
    predictions = _predict(pixels)
    chosen: list[int] = []
    for number, prediction in enumerate(predictions):
        if np.abs(predictions[chosen] - prediction).max(axis=1, initial=0).min(initial=1) > _APART:
            chosen.append(number)
    assert len(chosen) >= _COUNT, f"only {len(chosen)} images have answers of their own"
    return [Digit(pixels[number], predictions[number]) for number in chosen[:_COUNT]]


def _blends(count: int) -> NDArray[np.uint8]:
    """(count, 8, 8)"""
    images = load_digits().images * (255 / 16)
    pairs = np.random.default_rng(0).integers(len(images), size=(2, count))
    return (images[pairs[0]] * 0.55 + images[pairs[1]] * 0.45).round().astype(np.uint8)


def _predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    from inference.models.loading import load_model  # noqa: PLC0415 TensorFlow, for those who need it

    return load_model(load_spec(ROOT / "models" / "digits")).predict(pixels[..., np.newaxis].astype(np.float32))
