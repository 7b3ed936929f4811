"""Workloads of all contenders: the models, and one image for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.models.registry import ModelRegistry
from inference.models.spec import ModelSpec
from inference.settings import load_settings

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "bench"

#: batch sizes of the runs in process
BATCH_SIZES = (1, 8, 32)
#: name of the runs in process with LiteRT
LITERT = "litert"
#: name of the run in process that decodes a photo and predicts it with LiteRT, in batches of the largest size
DECODING = "decoding"

_DESCRIPTION = """\
name: {name}
file: model.keras
input: {{shape: [{side}, {side}, 3], dtype: uint8}}
"""


@dataclass(frozen=True)
class Workload:
    """A model and the content of its requests."""

    name: str
    folder: Path
    #: the image's bytes in a request
    image: Path
    #: side of a raw array; 0 for an encoded picture
    side: int

    @property
    def metadata(self) -> str:
        """Form field `metadata`; empty for an encoded picture."""
        return json.dumps({"shape": [self.side, self.side, 3], "dtype": "uint8"}) if self.side else ""


def model_of(folder: Path, *, litert: bool = False) -> ModelSpec:
    """Read the model of a folder with a model.yaml; without `litert` for TensorFlow's own runtime."""
    settings = load_settings(None, {"models": [folder], "model_files": {"allowed_folders": [folder]}})
    return ModelRegistry.load(settings).get().model_copy(update={"litert": litert})


def prepare(names: list[str]) -> list[Workload]:
    """Create the workloads of these names: `tiny`, `mobilenetv2`, `photo`."""
    return [_photo() if name == "photo" else _random(name) for name in names]


def _photo() -> Workload:
    return Workload("photo", ROOT / "models" / "efficientnet-lite0", ROOT / "samples" / "chelsea.jpg", side=0)


def _random(name: str) -> Workload:
    """Create a model with random weights and a random image, once."""
    side = {"tiny": 32, "mobilenetv2": 224}[name]
    folder, image = WORK / "models" / name, WORK / f"{name}.bin"
    if not (folder / "model.keras").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.yaml").write_text(_DESCRIPTION.format(name=name, side=side), encoding="utf-8")
        command = [sys.executable, "-m", "bench.make_model", name, str(folder / "model.keras")]
        environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)  # noqa: S603 our own module
    image.write_bytes(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8).tobytes())
    return Workload(name, folder, image, side)
