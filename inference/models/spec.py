"""Description of a model, as written by its author, and the same with its files on this host.

The API also reads it (shapes, labels, digest), so this module does not import TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from inference.models.locations import FileLocation
from inference.models.unpacking import DEFAULT_LIMITS
from inference.settings.model_fields import Label, ModelName

#: Keys of a description that name files, in their order in the model's digest.
FILE_KEYS = ("file", "architecture_file", "weights_file")


def _is_location(text: str) -> str:
    FileLocation.parse(text)
    return text


#: `PATH` or `s3://BUCKET/KEY`, either with `#sha256=HEX` behind it
Location = Annotated[str, AfterValidator(_is_location)]


class RawArrays(StrEnum):
    """Conversion of raw arrays (bytes with shape and dtype, or .npy) to the model's input."""

    MODEL_READY = "model_ready"  #: the shape must be the model's; the values are not changed
    PIXELS = "pixels"  #: any height and width, 1, 3 or 4 channels, values 0 to 255: converted and resized


class Resize(StrEnum):
    CENTER_CROP = "center_crop"  #: crop the central square (times `crop_fraction`), then resize
    STRETCH = "stretch"  #: resize the whole picture, whatever its aspect ratio


class Interpolation(StrEnum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class InputSpec(_Strict):
    """Input of the model's graph for one image."""

    #: height, width, channels in pixels; channels is 1 or 3
    shape: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)], Literal[1, 3]]
    dtype: Literal["uint8", "float32"] = "uint8"
    raw: RawArrays = RawArrays.MODEL_READY
    resize: Resize = Resize.CENTER_CROP
    #: kept part of the central square's side, 0 to 1
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    interpolation: Interpolation = Interpolation.BICUBIC

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def bytes_per_image(self) -> int:
        height, width, channels = self.shape
        return height * width * channels * self.numpy_dtype.itemsize


class ModelDescription(_Strict):
    """Description of one model in `model.yaml` or in the setting `models`."""

    name: ModelName
    version: str = "1"
    description: str = ""
    license: str = ""
    source: str = ""
    #: a whole model: `.keras`, `.h5`, a SavedModel's folder, or a `.zip` of one
    file: Location | None = None
    #: a model's JSON, of Keras 2 or 3
    architecture_file: Location | None = None
    #: H5: weights for `architecture_file`, or instead of those in `file`
    weights_file: Location | None = None
    #: in class order; without labels, results have only the class index
    labels: tuple[Label, ...] = ()
    #: file with the labels, one per line
    labels_file: Location | None = None
    #: a result is `confident` if its confidence level is at least this
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    #: default: `worker.predict_timeout_s`
    predict_timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    #: default: the first GPU, else the CPU
    device: str | None = Field(default=None, pattern=r"^(cpu|gpu(:\d{1,3})?)$")
    #: compute in half precision (float16 on a GPU, bfloat16 on a CPU); weights and answers stay float32
    mixed_precision: bool = False
    #: compile the graph with XLA
    xla: bool = False
    #: on a CPU, let LiteRT run the graph if it returns the same outputs
    litert: bool = True
    input: InputSpec
    #: base of relative paths; the reader sets it, like `origin`
    folder: Path = Field(default=Path(), exclude=True)
    #: name of this description in errors
    origin: str = Field(default="", exclude=True)

    @property
    def queue(self) -> str:
        """Name of this model's Celery queue."""
        return f"predict.{self.name}"

    @property
    def fits_lite(self) -> bool:
        """Whether LiteRT may run it on a CPU: no setting asks for another way."""
        return self.litert and not self.xla and not self.mixed_precision

    @property
    def locations(self) -> dict[str, FileLocation]:
        """Locations of the model's files, by key."""
        named = {key: getattr(self, key) for key in FILE_KEYS}
        return {key: FileLocation.parse(text) for key, text in named.items() if text is not None}

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if self.file is None and (self.architecture_file is None or self.weights_file is None):
            raise ValueError("file: needed, or architecture_file and weights_file")
        if self.file is not None and self.architecture_file is not None:
            raise ValueError("file: it has an architecture of its own; leave architecture_file out")
        if self.labels and self.labels_file is not None:
            raise ValueError("labels: labels_file gives labels too; leave one of them out")
        return self


@dataclass(frozen=True)
class LocalFile:
    """A file or a SavedModel's folder of a model, on this host."""

    #: location in the description
    location: str
    path: Path
    #: hex digest of its content when it was found
    sha256: str


class ModelSpec(ModelDescription):
    """A described model with its files on this host, for the worker that loads it and the API that describes it."""

    #: by key, for the keys of `FILE_KEYS` in the description
    local_files: Mapping[str, LocalFile]
    #: `sha256:` and the hex digest of the model's file; for several files, that of the lines `KEY sha256:HEX`
    digest: str
    #: limit for the content of its files when they are read
    max_unpacked_bytes: int = DEFAULT_LIMITS.max_bytes
    #: folder of models converted for LiteRT, which the predictors of a host share; None: convert in the process that loads
    conversions_dir: Path | None = None
    #: free space that must remain on the disk of that folder
    min_free_bytes: int = DEFAULT_LIMITS.min_free_bytes
