"""A model's description: `model.yaml` in the model's folder.

Read by the API too (shapes, labels, digest), so nothing here touches TensorFlow.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.errors import ConfigurationError

DESCRIPTION_FILE = "model.yaml"


class RawArrays(StrEnum):
    """How raw arrays (bytes with shape and dtype, or .npy) become the model's input."""

    MODEL_READY = "model_ready"  #: the shape must be the model's; the values are taken as they are
    PIXELS = "pixels"  #: any height and width, 1, 3 or 4 channels, values 0 to 255: converted and resized


class Resize(StrEnum):
    CENTER_CROP = "center_crop"  #: cut the central square (times `crop_fraction`), then resize
    STRETCH = "stretch"  #: resize the whole picture, whatever its aspect ratio


class Interpolation(StrEnum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class InputSpec(_Strict):
    """What the model's graph is given for one image."""

    #: height, width, channels in pixels; channels is 1 or 3
    shape: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)], Literal[1, 3]]
    dtype: Literal["uint8", "float32"] = "uint8"
    raw: RawArrays = RawArrays.MODEL_READY
    resize: Resize = Resize.CENTER_CROP
    #: share of the central square's side that is kept, 0 to 1
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    interpolation: Interpolation = Interpolation.BICUBIC

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def bytes_per_image(self) -> int:
        height, width, channels = self.shape
        return height * width * channels * self.numpy_dtype.itemsize


class ModelSpec(_Strict):
    """One model: its files, input, labels and provenance."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str = "1"
    description: str = ""
    license: str = ""
    source: str = ""
    #: the model's file, relative to its folder
    file: Path
    #: one label a line, in class order; without it results carry the class index alone
    labels_file: Path | None = None
    input: InputSpec
    #: where the description lies; the loader sets it
    folder: Path = Field(default=Path(), exclude=True)

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @property
    def queue(self) -> str:
        """The Celery queue of this model."""
        return f"predict.{self.name}"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        if self.labels_file is None:
            return ()
        return tuple((self.folder / self.labels_file).read_text(encoding="utf-8").splitlines())

    @cached_property
    def digest(self) -> str:
        """``sha256:`` and the hex digest of the model's file."""
        with self.path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def load_spec(folder: Path) -> ModelSpec:
    """Read `folder`/model.yaml.

    Raises:
        ConfigurationError: the description or a file that it names is missing or wrong; says which key.
    """
    description = folder / DESCRIPTION_FILE
    try:
        document = yaml.safe_load(description.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the model description {description}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{description} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{description} must be a mapping with name, file and input")
    if "folder" in document:
        raise ConfigurationError(f"{description}: folder: unknown key; file is relative to the description", field="folder")
    try:
        spec = ModelSpec.model_validate(document | {"folder": folder})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"{description}: {problems}") from error
    for key, file in (("file", spec.file), ("labels_file", spec.labels_file)):
        if file is not None and not (folder / file).is_file():
            raise ConfigurationError(f"{description}: {key} names {file}, which is not in {folder}", field=key)
    return spec
