"""Check whether a Redis server keeps accepted tasks: it must not evict keys, and should have an append-only file.

`INFO` is called at the start of a part and for `status`; managed servers forbid `CONFIG`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

from inference.errors import ConfigurationError
from inference.runtime.redis import broker_url, connect, task_store_url
from inference.settings import EMBEDDED, Settings
from inference.settings.redis_address import RedisAddress

logger = logging.getLogger(__name__)

_OLDEST_VERSION = (6, 2)


@dataclass(frozen=True)
class RedisServer:
    """Properties of a server by its own answer; None: unknown."""

    #: the setting that names it
    key: str
    version: str | None = None
    #: its policy when its memory is full
    maxmemory_policy: str | None = None
    has_append_only_file: bool | None = None
    #: number of shards of a Redis Cluster; 0: it is in none; None: it does not tell
    shards: int | None = 0
    #: whether the service's keys have a hash tag, so that all are in one slot of a cluster
    has_hash_tag: bool = False
    is_replica: bool = False

    @property
    def evicts(self) -> bool:
        return self.maxmemory_policy not in {None, "noeviction"}

    def faults(self) -> Iterator[str]:
        """Yield the reasons for which the service cannot work with this server."""
        if self.shards is not None and self.shards > 1:
            yield (
                f"{self.key}: the server is part of a Redis Cluster of {self.shards} shards; one server, one with sentinels, or a"
                " cluster of one shard is needed"
            )
        elif self.shards != 0 and not self.has_hash_tag:
            yield (
                f"{self.key}: the server is part of a Redis Cluster; set task_store.key_prefix to a hash tag, such as"
                " {inference}, so that all keys are in one slot"
            )
        if self.is_replica:
            yield f"{self.key}: the server is a replica (role:slave), which takes no tasks; name its master, or its sentinels"
        if self.version is not None and _version(self.version) < _OLDEST_VERSION:
            yield f"{self.key}: the server is Redis {self.version}; 6.2 or later is needed"

    def eviction(self) -> Iterator[str]:
        """Yield a sentence if the server loses accepted tasks when its memory is full."""
        if self.evicts:
            yield (
                f"{self.key}: the Redis server evicts keys when its memory is full (maxmemory-policy {self.maxmemory_policy}),"
                " which loses accepted tasks; set its maxmemory-policy to noeviction"
            )

    def warnings(self) -> Iterator[str]:
        """Yield the reasons for which a restart of the server may lose accepted tasks."""
        if self.has_append_only_file is False:
            yield f"{self.key}: the Redis server has no append-only file (appendonly no): a restart loses accepted tasks"
        if self.maxmemory_policy is None:
            yield f"{self.key}: INFO does not tell whether the Redis server evicts keys; set its maxmemory-policy to noeviction"


def check_redis(settings: Settings) -> None:
    """Log a warning for each state that may lose tasks. A server that is down is not checked; `status` reports it later.

    Raises:
        ConfigurationError: a server refuses the connection, is too old, or evicts keys without `task_store.allow_eviction`.
    """
    faults: list[str] = []
    for key, url in _servers(settings).items():
        try:
            server = _query(key, url, settings)
        except ConfigurationError as error:
            faults.append(error.detail)
            continue
        except redis.RedisError as error:
            logger.warning("%s: the Redis server does not answer, so it is not known whether it keeps tasks: %s", key, error)
            continue
        faults += server.faults()
        if settings.task_store.allow_eviction:
            _warn(server.eviction())
        else:
            faults += (f"{sentence}, or task_store.allow_eviction to true" for sentence in server.eviction())
        _warn(server.warnings())
    if faults:
        raise ConfigurationError("\n".join(faults))


def redis_servers(settings: Settings) -> list[RedisServer]:
    """Query the servers now, the embedded one included; servers that do not answer are left out."""
    found = []
    for key, url in _servers(settings, with_embedded=True).items():
        try:
            found.append(_query(key, url, settings))
        except (ConfigurationError, redis.RedisError):
            continue
    return found


def _servers(settings: Settings, *, with_embedded: bool = False) -> dict[str, str]:
    """Return the URL of each server by the setting that names it, the task store first. Each server is listed once."""
    named = {"task_store.url": settings.task_store.url, "broker.url": settings.broker.url}
    resolved = {"task_store.url": task_store_url(settings), "broker.url": broker_url(settings)}
    found: dict[str, str] = {}
    addresses = []
    for key, url in named.items():
        if url is None or (key == "broker.url" and settings.broker.is_amqp) or (url == EMBEDDED and not with_embedded):
            continue
        address = RedisAddress.parse(resolved[key])
        place = (address.nodes, address.socket, address.master)
        if place not in addresses:
            addresses.append(place)
            found[key] = resolved[key]
    return found


def _query(key: str, url: str, settings: Settings) -> RedisServer:
    """Query one server. Raises redis.RedisError if it does not answer, ConfigurationError if it refuses the connection."""
    client = connect(url, retries=0)
    try:
        info: Any = client.info()
        shards = _shards(client) if info.get("cluster_enabled") else 0
    except redis.AuthenticationError as error:
        raise ConfigurationError(f"{key}: the Redis server refuses the user or the password: {error}") from error
    except redis.ResponseError as error:
        if "DB index" in str(error):
            raise ConfigurationError(f"{key}: the Redis server refuses the database: {error}") from error
        return RedisServer(key)  # the user may not call INFO
    except (OSError, ValueError) as error:  # invalid TLS files, or a host name that does not resolve
        raise ConfigurationError(f"{key}: no connection can be made: {error}") from error
    finally:
        client.close()
        client.connection_pool.disconnect()
    append_only = info.get("aof_enabled")
    return RedisServer(
        key,
        version=str(info["redis_version"]) if "redis_version" in info else None,
        maxmemory_policy=info.get("maxmemory_policy"),
        has_append_only_file=None if append_only is None else bool(append_only),
        shards=shards,
        has_hash_tag="{" in settings.task_store.key_prefix,
        # With sentinels a replica is temporary: they soon name another server.
        is_replica=info.get("role") == "slave" and RedisAddress.parse(url).master is None,
    )


def _shards(client: redis.Redis) -> int | None:
    """Return the number of masters with slots; None if the user may not ask for it, or a managed server does not tell."""
    try:
        found: Any = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        return int(found["cluster_size"])
    except (redis.ResponseError, KeyError, TypeError, ValueError):
        return None


def _version(version: str) -> tuple[int, ...]:
    """Return major and minor version; an unreadable version counts as new enough."""
    try:
        return tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return _OLDEST_VERSION


def _warn(sentences: Iterator[str]) -> None:
    for sentence in sentences:
        logger.warning("%s", sentence)
