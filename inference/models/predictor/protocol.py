"""What the worker and its predictor process say to each other, over a socket pair.

Images do not travel here (they lie in the arena); predictions do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inference.models.predictor.device_lock import GpuLock
from inference.models.spec import ModelSpec
from inference.settings import GpuSettings


@dataclass(frozen=True)
class LoadModel:
    spec: ModelSpec
    #: of the arena that its images come in
    descriptor: int
    slots: int


@dataclass(frozen=True)
class Load:
    """First message: what to load and warm."""

    models: tuple[LoadModel, ...]
    max_batch_size: int
    gpu: GpuSettings = field(default_factory=GpuSettings)
    #: by GPU, for all that the models may want
    gpu_locks: Mapping[int, GpuLock] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """A model is warm."""

    model: str
    #: number of values of one prediction
    output_size: int
    #: milliseconds that one image takes alone
    predict_ms: float
    #: what runs it, for people
    runtime: str = ""
    #: images a second in the batch size that is quickest; 0 where that was not measured
    images_per_s: float = 0.0


@dataclass(frozen=True)
class Ready:
    models: tuple[Loaded, ...]


@dataclass(frozen=True)
class Predict:
    model: str
    #: slots of the model's arena, one for each image of the batch
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Predicted:
    """Followed by the predictions as bytes: (batch, output_size) float32."""

    predict_ms: float


@dataclass(frozen=True)
class Failed:
    """The model could not be loaded or raised; the process goes on. A foreign exception never travels, only its text."""

    message: str
    #: the same for clients; default: `message`
    public: str | None = None
