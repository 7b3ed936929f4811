"""Description of a model, as written by its author, and the same with its files on this host.

The API also reads it (shapes, labels, digest), so this module does not import TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from inference.errors import shown
from inference.models.archives import DEFAULT_LIMITS
from inference.models.locations import FileLocation
from inference.models.model_code import CodeLocation
from inference.models.pixel_scaling import IMAGENET, NO_SCALE, ChannelValues, PixelScaling, Scale
from inference.settings.model_fields import Label, ModelName

#: Keys of a description that name files, in their order in the model's digest.
FILE_KEYS = ("file", "architecture_file", "weights_file")


def _is_location(text: str) -> str:
    FileLocation.parse(text)
    return text


#: `PATH` or `s3://BUCKET/KEY`, either with `#sha256=HEX` behind it
Location = Annotated[str, AfterValidator(_is_location)]


def _is_code(text: str) -> str:
    CodeLocation.parse(text)
    return text


#: `FILE.py:CLASS`
Code = Annotated[str, AfterValidator(_is_code)]


class RawArrays(StrEnum):
    """Conversion of raw arrays (bytes with shape and dtype, or .npy) to the model's input."""

    MODEL_READY = "model_ready"  #: the shape must be the model's; the values are not changed
    PIXELS = "pixels"  #: any height and width, 1, 3 or 4 channels, values 0 to 255: converted and resized


class Resize(StrEnum):
    CENTER_CROP = "center_crop"  #: crop the central square (times `crop_fraction`), then resize
    STRETCH = "stretch"  #: resize the whole picture, at any aspect ratio


class Interpolation(StrEnum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Layout(StrEnum):
    """Order of an image's dimensions in the graph."""

    NHWC = "nhwc"  #: (height, width, channels), as TensorFlow's layers take them
    NCHW = "nchw"  #: (channels, height, width), as PyTorch's layers take them


class ChannelOrder(StrEnum):
    RGB = "rgb"
    BGR = "bgr"


class Activation(StrEnum):
    """Function that turns the graph's outputs into the values of an answer."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"  #: the outputs are answered as they are


class Task(StrEnum):
    SINGLE_LABEL = "single_label"  #: an image has one class
    MULTI_LABEL = "multi_label"  #: an image has any number of labels, each with a probability of its own


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


def _default_dtype(data: Mapping[str, Any]) -> str:
    """Choose the dtype of a description without one from its other, valid keys."""
    return "float32" if data.get("scale", NO_SCALE) != NO_SCALE or data.get("mean") or data.get("std") else "uint8"


def _is_threshold(value: object) -> object:
    """Accept a number, or a list or mapping of numbers: pydantic's error for a union would be one for each of its members."""
    numbers = value if isinstance(value, list | tuple) else value.values() if isinstance(value, Mapping) else (value,)
    if value is not None and not all(type(each) in (int, float) and math.isfinite(each) for each in numbers):
        raise ValueError("must be a number, or for task: multi_label a list or mapping of numbers by label")
    return value


#: One number for all classes, one for each label, or by label.
Threshold = Annotated[float | tuple[float, ...] | dict[str, float] | None, BeforeValidator(_is_threshold)]


def threshold_problem(threshold: Threshold, labels: tuple[str, ...]) -> str:
    """Say why thresholds of single labels do not fit the labels; empty if they do."""
    if isinstance(threshold, tuple) and labels and len(threshold) != len(labels):
        return f"a list of {len(threshold)} for {len(labels)} labels; give one for each"
    unknown = set(threshold) - set(labels) if isinstance(threshold, dict) else set()
    return f"there is no label {shown(min(unknown))}; the labels are those of labels or labels_file" if unknown else ""


class InputSpec(_Strict):
    """Input of the model's graph for one image, and the way from pixels to it."""

    #: height, width, channels in pixels, with any layout; channels is 1 or 3
    shape: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)], Literal[1, 3]]
    layout: Layout = Layout.NHWC
    channel_order: ChannelOrder = ChannelOrder.RGB
    #: scale of pixels; with `mean` and `std` the graph gets (pixel * scale - mean) / std
    scale: Scale = NO_SCALE
    #: of the scaled values: one number, or one for each channel in `channel_order`
    mean: ChannelValues = ()
    #: the same
    std: ChannelValues = ()
    #: default: uint8, or float32 if `scale`, `mean` or `std` changes the pixels
    dtype: Literal["uint8", "float32"] = Field(default_factory=_default_dtype, validate_default=True)
    raw: RawArrays = RawArrays.MODEL_READY
    resize: Resize = Resize.CENTER_CROP
    #: kept part of the central square's side, 0 to 1
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    interpolation: Interpolation = Interpolation.BICUBIC

    @field_validator("channel_order")
    @classmethod
    def _has_colours(cls, order: ChannelOrder, info: ValidationInfo) -> ChannelOrder:
        if order is ChannelOrder.BGR and info.data.get("shape", (0, 0, 3))[-1] == 1:
            raise ValueError("bgr needs an input.shape with 3 channels; leave channel_order out")
        return order

    @field_validator("scale")
    @classmethod
    def _has_imagenet_colours(cls, scale: str, info: ValidationInfo) -> str:
        if scale == IMAGENET and info.data.get("shape", (0, 0, 3))[-1] == 1:
            raise ValueError("imagenet needs an input.shape with 3 channels; use a number with input.mean and input.std")
        return scale

    @field_validator("mean", "std")
    @classmethod
    def _fits_channels(cls, values: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if info.data.get("scale") == IMAGENET:
            raise ValueError("input.scale imagenet has a mean and a std of its own; use the scale 1/255 with others")
        channels = info.data["shape"][-1] if "shape" in info.data else len(values)
        if len(values) not in {1, channels} or not np.isfinite(values).all():
            raise ValueError(f"must be a finite number, or a list of one for each channel, which are {channels}")
        if info.field_name == "std" and min(values) <= 0:
            raise ValueError("must be greater than 0")
        return values

    @field_validator("dtype")
    @classmethod
    def _holds_scaled_values(cls, dtype: str, info: ValidationInfo) -> str:
        if dtype == "uint8" and _default_dtype(info.data) != dtype:
            raise ValueError(
                "uint8 cannot hold the values of input.scale, input.mean and input.std; use float32, or leave dtype out"
            )
        return dtype

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """Shape in which the graph takes one image: (H, W, C), or (C, H, W) with `layout: nchw`."""
        height, width, channels = self.shape
        return (channels, height, width) if self.layout is Layout.NCHW else self.shape

    @cached_property
    def scaling(self) -> PixelScaling | None:
        """Scaling of the pixels, in the order of channels that the graph takes; None if they stay 0 to 255."""
        is_bgr = self.channel_order is ChannelOrder.BGR
        return PixelScaling.create(self.scale, self.mean, self.std, self.shape[-1], is_bgr=is_bgr)

    @property
    def bytes_per_image(self) -> int:
        height, width, channels = self.shape
        return height * width * channels * self.numpy_dtype.itemsize


class OutputSpec(_Strict):
    """Output of the model's graph, and the way from it to an answer."""

    #: of the graph's outputs, if it has several
    name: str | None = None
    #: None: the graph ends in probabilities, and has to
    activation: Activation | None = None


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
    #: class with `preprocess` or `postprocess`, which runs in the predictor process with the worker's rights
    code: Code | None = None
    #: a result is `confident` if its confidence level is at least this; of a multi-label model, a label is in the answer if its
    #: value is at least this (default 0.5): one number, a list with one for each label, or a mapping for some labels
    threshold: Threshold = None
    #: number of classes in `top` of a result, at most all; default: no `top`
    top_k: int | None = Field(default=None, gt=0)
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
    output: OutputSpec = OutputSpec()
    task: Task = Task.SINGLE_LABEL
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

    @property
    def is_local(self) -> bool:
        """Whether none of its files, the labels included, comes from a bucket."""
        labels = [] if self.labels_file is None else [FileLocation.parse(self.labels_file)]
        return all(location.bucket is None for location in (*self.locations.values(), *labels))

    @model_validator(mode="after")
    def _has_answers(self) -> Self:
        if self.task is Task.MULTI_LABEL and self.output.activation is Activation.SOFTMAX:
            raise ValueError("output.activation: softmax is for one class of an image; task multi_label needs sigmoid or none")
        if self.task is Task.SINGLE_LABEL and isinstance(self.threshold, tuple | dict):
            raise ValueError("threshold: must be one number, unless the key task says multi_label")
        problem = threshold_problem(self.threshold, self.labels) if self.labels_file is None else ""
        if problem:
            raise ValueError(f"threshold: {problem}")
        return self

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
    #: the file that `code` names, which is in the digest too
    code_file: LocalFile | None = None
    #: whether the class of `code` makes the graph's input of the pixels
    has_preprocess: bool = False
    #: limit for the content of its files when they are read
    max_unpacked_bytes: int = DEFAULT_LIMITS.max_bytes
    #: folder of models converted for LiteRT, which the predictors of a host share; None: convert in the process that loads
    conversions_dir: Path | None = None
    #: free space that must remain on the disk of that folder
    min_free_bytes: int = DEFAULT_LIMITS.min_free_bytes

    @property
    def image_input(self) -> InputSpec:
        """Input as images are decoded: that of the graph, or RGB pixels, (H, W, C) uint8, for the code's `preprocess`."""
        if not self.has_preprocess:
            return self.input
        return self.input.model_copy(update={"layout": Layout.NHWC, "dtype": "uint8"})
