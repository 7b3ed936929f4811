"""Registry of running workers and their loaded models, which `/health/ready` reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import redis

from inference.runtime.documents import known_members
from inference.runtime.redis import unavailable_when_down

logger = logging.getLogger(__name__)

#: Interval between two heartbeats of a worker, and the life of one, seconds.
ANNOUNCE_INTERVAL_S = 1.0
ANNOUNCEMENT_TTL_S = 5.0


@dataclass(frozen=True)
class LoadedModelInfo:
    """Model that a predictor has loaded and warmed up."""

    name: str
    version: str
    digest: str
    #: duration of one image alone, milliseconds, measured at the warm-up
    predict_ms: float
    #: images per second in batches of the fastest size, measured at the warm-up
    images_per_s: float = 0.0
    #: the library that runs it
    runtime: str = ""
    #: duration of a batch by its size, milliseconds, measured at the warm-up
    batch_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerInfo:
    worker: str
    models: tuple[LoadedModelInfo, ...]


class WorkerPresence:
    """Heartbeats that expire, so that a killed worker disappears within `ANNOUNCEMENT_TTL_S`."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._key_prefix = f"{key_prefix}:worker:"
        #: key of the set of all workers that were up recently
        self._index = f"{key_prefix}:workers"

    def announce(self, info: WorkerInfo) -> None:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            pipe.sadd(self._index, info.worker)
            pipe.set(self._key_prefix + info.worker, orjson.dumps(asdict(info)), px=round(ANNOUNCEMENT_TTL_S * 1000))
            pipe.execute()

    def leave(self, worker: str) -> None:
        with unavailable_when_down():
            self._redis.delete(self._key_prefix + worker)

    def workers(self) -> list[WorkerInfo]:
        with unavailable_when_down():
            names: Any = sorted(self._redis.smembers(self._index))
            found: Any = self._redis.mget([self._key_prefix + name.decode() for name in names]) if names else []
            gone = [name for name, data in zip(names, found, strict=True) if data is None]
            if gone:
                self._redis.srem(self._index, *gone)
        announced = (_parse(data) for data in found if data is not None)
        return [worker for worker in announced if worker is not None]


def _model(document: Mapping[str, Any]) -> LoadedModelInfo:
    return LoadedModelInfo(**known_members(LoadedModelInfo, document))


def _parse(data: bytes) -> WorkerInfo | None:
    """Read a heartbeat; None if it is malformed, so that a worker of another version does not hide the others."""
    try:
        document = orjson.loads(data)
        return WorkerInfo(document["worker"], tuple(_model(model) for model in document["models"]))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        logger.warning("the heartbeat of a worker cannot be read: %r", error)
        return None
