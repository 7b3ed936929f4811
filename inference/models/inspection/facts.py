"""Facts about a model that its file states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: Size of a dimension; None if it is open.
Size = int | None


class FileFormat(StrEnum):
    KERAS = "Keras"
    H5 = "Keras H5"
    SAVED_MODEL = "SavedModel"
    LITERT = "LiteRT"
    ONNX = "ONNX"


@dataclass(frozen=True)
class InputScaling:
    """Scaling of pixels that the graph does itself.

    Args:
        origin: the part of the file that says so, such as "a Rescaling layer".
        low: the smallest value that a pixel of 0 to 255 becomes; None if the file states the scaling without its numbers.
        high: the largest one.
    """

    origin: str
    low: float | None
    high: float | None

    @property
    def fits_pixels(self) -> bool:
        """Whether it is made for pixels of 0 to 255: the result is small or centred. One for 0 to 1 gives hundreds here."""
        if self.low is None or self.high is None:
            return True
        return self.high <= _MAX_SCALED or self.low <= -_MAX_SCALED


@dataclass(frozen=True)
class OutputFacts:
    """Output of a model.

    Args:
        name: as `output.name` of a description names it; empty if the file has none.
        classes: number of values for one image, if the file says so.
        activation: the function that gives it: `softmax`, `sigmoid`, the name of another one, `linear` for none, or None if
            it was not found.
    """

    name: str = ""
    classes: int | None = None
    activation: str | None = None


#: Largest value of a scaled pixel; a standardised pixel of ImageNet is at most 2.7.
_MAX_SCALED = 20.0


@dataclass(frozen=True)
class ModelFacts:
    """Content of a model file, as far as it was found.

    Args:
        input_shapes: for each input, with the batch dimension first.
        input_dtype: NumPy's name of the first input's type.
        input_range: the real values that a quantised input of another type than uint8 stands for.
        scaling: None if none was found.
        labels: of the file's metadata, in class order.
        labels_problem: why labels in the metadata cannot be used; it begins with a verb, and is empty if there is none.
    """

    format: FileFormat
    input_shapes: tuple[tuple[Size, ...], ...]
    input_dtype: str = "float32"
    input_range: tuple[float, float] | None = None
    outputs: tuple[OutputFacts, ...] = (OutputFacts(),)
    scaling: InputScaling | None = None
    labels: tuple[str, ...] = ()
    labels_problem: str = ""
