"""Which workers are up and which models they have loaded: what `/health/ready` asks."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import redis

from inference.runtime.redis import unavailable_when_down

logger = logging.getLogger(__name__)

#: Seconds between two announcements, and how long one counts.
ANNOUNCE_INTERVAL_S = 1.0
ANNOUNCEMENT_TTL_S = 5.0


@dataclass(frozen=True)
class LoadedModelInfo:
    """A model that a predictor has warmed up."""

    name: str
    version: str
    digest: str
    #: milliseconds that one image takes alone, measured at the warm-up
    predict_ms: float
    #: images a second in batches of the quickest size, measured at the warm-up
    images_per_s: float = 0.0


@dataclass(frozen=True)
class WorkerInfo:
    worker: str
    models: tuple[LoadedModelInfo, ...]


class WorkerPresence:
    """Announcements that expire by themselves, so that a killed worker is gone within `ANNOUNCEMENT_TTL_S`."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._key_prefix = f"{key_prefix}:worker:"
        #: names of all workers that were up lately
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


def _parse(data: bytes) -> WorkerInfo | None:
    """None for what cannot be read: a worker of another version does not hide the others."""
    try:
        document = orjson.loads(data)
        return WorkerInfo(document["worker"], tuple(LoadedModelInfo(**model) for model in document["models"]))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        logger.warning("the announcement of a worker cannot be read: %r", error)
        return None
