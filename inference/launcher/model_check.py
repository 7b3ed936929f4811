"""Trial of models without the service: load, warm up, and time each with each runtime; classify a photo."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from inference.errors import ConfigurationError, InferenceError, PredictionFailed
from inference.imaging import ImageLimits, decode_into, inspect
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import PredictorProcess
from inference.models.predictor.protocol import Failed
from inference.models.spec import ModelSpec
from inference.settings import Settings

#: Name of the library that runs converted models.
LITERT = "LiteRT"

_TOP = 5
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Guess:
    class_index: int
    label: str | None
    confidence: float


@dataclass(frozen=True)
class Trial:
    """One model with one runtime.

    Args:
        runtime: the library that ran it.
        reason: why the service would use it, or not another one; empty if there is no choice.
        is_chosen: whether the service would use this runtime.
        cost_ms: milliseconds of a batch, by its size.
        memory_mb: resident memory of the process that has it loaded, MiB; None where the system does not tell.
        top: the most likely classes of the photo, the first is the best.
        custom: return value of the model's code for the photo; None without such code.
    """

    model: str
    runtime: str
    reason: str
    is_chosen: bool
    classes: int
    cost_ms: dict[int, float]
    images_per_s: float
    memory_mb: int | None
    top: tuple[Guess, ...] = ()
    custom: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"cost_ms": {str(size): round(cost, 3) for size, cost in self.cost_ms.items()}}


def try_model(spec: ModelSpec, settings: Settings, photo: bytes | None) -> Iterator[Trial]:
    """Yield the trial with the runtime that the service would use, then those with others, if there are any.

    Raises:
        ConfigurationError: the model cannot be loaded, or does not fit its description; the photo cannot be decoded.
        InferenceError: the model fails on the photo.
    """
    first = _try(spec, settings, photo, is_chosen=True)
    yield first
    is_converted = first.runtime == LITERT and not any(file.path.suffix == ".tflite" for file in spec.local_files.values())
    if is_converted:
        other = _try(spec.model_copy(update={"litert": False}), settings, photo, is_chosen=False)
        yield other


def table(trial: Trial) -> str:
    """Show a trial as lines for people."""
    reason = f": {trial.reason}" if trial.reason else ""
    used = f"  (the service uses this one{reason})" if trial.is_chosen else ""
    memory = "" if trial.memory_mb is None else f", {trial.memory_mb} MB resident"
    lines = [f"{trial.model} by {trial.runtime}: {trial.classes} values for an image{memory}{used}"]
    lines += [f"  batch of {size:>3}: {ms:9.2f} ms {size * 1000 / ms:9.1f} images/s" for size, ms in trial.cost_ms.items()]
    for guess in trial.top:
        label = f" ({guess.label})" if guess.label else ""
        lines.append(f"  {guess.confidence:.4f} class {guess.class_index}{label}")
    if trial.custom is not None:
        lines.append(f"  custom {orjson.dumps(trial.custom).decode()}")
    return "\n".join(lines) + "\n"


def read_photo(file: Path) -> bytes:
    """Read a photo's file. Raises ConfigurationError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the image {file}: {error.strerror}") from error


def _try(spec: ModelSpec, settings: Settings, photo: bytes | None, *, is_chosen: bool) -> Trial:
    options = settings.worker
    arena = SlotArena(spec.image_input, 1)
    process = PredictorProcess(
        {spec.name: (spec, arena)},
        max_batch_size=options.max_batch_size,
        predict_timeout_s=options.predict_timeout_s,
        load_timeout_s=options.load_timeout_s,
        gpu=settings.gpu,
    )
    try:
        if photo is not None:
            _decode(photo, arena, spec, settings)
        process.start(lambda: False)
        loaded = process.loaded[spec.name]
        top, custom = ((), None) if photo is None else _classify(process, spec)
        memory = _resident_mb(process.pid)
    finally:
        process.stop()
        arena.close()
    cost = dict(loaded.cost_ms)
    reason = loaded.runtime_reason if is_chosen else ""
    return Trial(
        spec.name, loaded.runtime, reason, is_chosen, loaded.output_size, cost, round(loaded.images_per_s, 1), memory, top, custom
    )


def _decode(photo: bytes, arena: SlotArena, spec: ModelSpec, settings: Settings) -> None:
    limits = ImageLimits(settings.limits.max_pixels)
    try:
        header = inspect(photo, shape=None, dtype=None, content_type=None, spec=spec.image_input, limits=limits)
        decode_into(arena.images[0], photo, header, spec.image_input, limits)
    except InferenceError as error:
        raise ConfigurationError(f"--image: {error.detail}") from error


def _classify(process: PredictorProcess, spec: ModelSpec) -> tuple[tuple[Guess, ...], dict[str, Any] | None]:
    """Predict the photo: its classes, and the return value of the model's code. Raises PredictionFailed."""
    predictions = process.predict(spec.name, [0])
    (custom,) = predictions.custom or (None,)
    if isinstance(custom, Failed):
        raise PredictionFailed(custom.message)
    return _top(predictions.values[0], spec.labels), None if custom is None else orjson.loads(custom)


def _top(values: Any, labels: Sequence[str]) -> tuple[Guess, ...]:
    best = np.argsort(-values, kind="stable")[:_TOP]
    return tuple(Guess(int(index), labels[index] if labels else None, round(float(values[index]), 6)) for index in best)


def _resident_mb(pid: int | None) -> int | None:
    try:
        found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if found is None else int(found[1]) // 1024
