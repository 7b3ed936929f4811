"""Messages between the worker and its predictor process, over a socket pair.

The messages contain predictions, but no images: these are in the arena.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inference.models.predictor.device_lock import GpuLock
from inference.models.spec import ModelSpec
from inference.runtime.log import LogSetup
from inference.settings import GpuSettings


@dataclass(frozen=True)
class LoadModel:
    spec: ModelSpec
    #: descriptor of the arena of its images
    descriptor: int
    slots: int


@dataclass(frozen=True)
class Load:
    """First message: the models to load and to warm up."""

    models: tuple[LoadModel, ...]
    max_batch_size: int
    gpu: GpuSettings = field(default_factory=GpuSettings)
    #: by index, for all GPUs that the models may use
    gpu_locks: Mapping[int, GpuLock] = field(default_factory=dict)
    #: format and levels of its log lines; None: as Python logs without any setup
    log: LogSetup | None = None


@dataclass(frozen=True)
class Loaded:
    """A model is warm."""

    model: str
    #: number of values of one prediction
    output_size: int
    #: milliseconds of a batch of one image
    predict_ms: float
    #: the library that runs it, and why it does, for log lines and pages
    runtime: str = ""
    runtime_reason: str = ""
    #: images per second at the fastest batch size; 0 if that was not measured
    images_per_s: float = 0.0
    #: difference between two values of a quantised output
    output_step: float = 0.0
    #: milliseconds of a batch, by its size
    cost_ms: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Step of the start before the process is ready, for log lines; any number of them precede `Ready` or `Failed`."""

    message: str


@dataclass(frozen=True)
class Ready:
    models: tuple[Loaded, ...]


@dataclass(frozen=True)
class Predict:
    model: str
    #: slots of the model's arena, one for each image of the batch
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Failed:
    """The model could not be loaded or raised, and the process continues; contains an exception's text, never the exception."""

    message: str
    #: the message for clients; default: `message`
    public: str | None = None


#: Result of a model's code for one image: the return value of `postprocess` as JSON text, or the error of the image.
CustomResult = bytes | Failed | None


@dataclass(frozen=True)
class Predicted:
    """Header of the predictions, which follow as bytes: (batch, output_size) float32."""

    predict_ms: float
    #: one for each image of a model with code, else empty
    custom: tuple[CustomResult, ...] = ()
