"""`python -m bench.answer_check FOLDER URL CLIENTS SECONDS`: check that each client gets its own answer; prints JSON.

Every request has one of a few dozen images, and a unique id. The answer must have that id, and the vector that the model
returns for that image in process; no two images have the same vector, so that an exchanged answer is detected.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import urllib3
import uvloop
from numpy.typing import NDArray

from bench.http_client import Connections
from bench.rounds import TOLERANCE
from bench.workload import model_of

_IMAGES = 32
_CANDIDATES = 1_000


@dataclass
class CheckedAnswers:
    """Answers within `seconds`."""

    answers: int = 0
    #: answers with the vector or id of another request
    wrong: int = 0
    #: requests without an answer, or with an error
    errors: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Sample:
    image: NDArray[Any]
    #: (classes,) float32
    prediction: NDArray[np.float32]


def is_right(document: dict[str, Any], request_id: str, prediction: NDArray[np.float32]) -> bool:
    """Whether the answer belongs to this request."""
    vector = np.array(document["response"]["prediction"], np.float32)
    is_same = vector.shape == prediction.shape and bool(np.abs(vector - prediction).max() <= TOLERANCE)
    return is_same and document["request_id"] == request_id


def distinguishable(samples: Iterable[Sample], count: int) -> list[Sample]:
    """Find the first `count` samples with distinguishable vectors. Raises RuntimeError if there are fewer."""
    taken: list[Sample] = []
    for sample in samples:
        if all(np.abs(sample.prediction - other.prediction).max() > 2 * TOLERANCE for other in taken):
            taken.append(sample)
        if len(taken) == count:
            return taken
    raise RuntimeError(f"the model distinguishes only {len(taken)} images: exchanged answers would not be detected")


def _samples(folder: Path) -> Iterator[Sample]:
    """Yield images of one colour each, most of them dark: a model with random weights does not distinguish the others."""
    from inference.models.loading import load_model, warm_up  # noqa: PLC0415 the comparison of answers needs no TensorFlow

    spec = model_of(folder)
    model = load_model(spec)
    warm_up(model, spec, [1])
    random = np.random.default_rng(0)
    for _ in range(_CANDIDATES):
        colour, brightness = random.integers(0, 200, spec.input.shape[-1]), random.random() ** 3
        pixels = (colour + random.integers(0, 56, spec.input.shape)) * brightness
        image = pixels.astype(spec.input.numpy_dtype)
        yield Sample(image, model.predict(image[None])[0])


async def _ask(url: str, samples: list[Sample], clients: int, seconds: float) -> CheckedAnswers:
    connections = Connections(url)
    checked = CheckedAnswers()
    began = time.perf_counter()

    async def client(number: int) -> None:
        for turn in itertools.count():
            if time.perf_counter() > began + seconds:
                return
            sample, request_id = samples[(number + turn) % len(samples)], f"{number}-{turn}"
            asked = time.perf_counter()
            try:
                answer = await connections.post(*_body(sample.image, request_id))
            except (OSError, EOFError, ValueError):
                checked.errors += 1
                continue
            checked.latencies_ms.append((time.perf_counter() - asked) * 1000)
            checked.answers += 1
            checked.wrong += not is_right(json.loads(answer), request_id, sample.prediction)

    await asyncio.gather(*map(client, range(clients)))
    checked.seconds = time.perf_counter() - began
    connections.close()
    return checked


def _body(image: NDArray[Any], request_id: str) -> tuple[bytes, str]:
    metadata = json.dumps({"shape": image.shape, "dtype": str(image.dtype), "request_id": request_id})
    part = ("image", image.tobytes(), "application/octet-stream")
    return urllib3.encode_multipart_formdata({"metadata": metadata, "image": part}, boundary="XBOUNDARYX")


if __name__ == "__main__":
    folder, url, clients, seconds = sys.argv[1:]
    done = uvloop.run(_ask(url, distinguishable(_samples(Path(folder)), _IMAGES), int(clients), float(seconds)))
    p50, p99 = np.percentile(done.latencies_ms or [0.0], [50, 99])
    figures = asdict(done) | {"latencies_ms": None, "p50_ms": float(p50), "p99_ms": float(p99)}
    sys.stdout.write(json.dumps(figures))
