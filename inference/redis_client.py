"""One way to reach Redis, whether embedded or not."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from inference.settings import EMBEDDED, Settings

#: The longest path of a Unix socket that every platform takes.
_MAX_SOCKET_PATH = 100


def embedded_socket(data_dir: Path) -> Path:
    """The embedded broker's Unix socket for this data folder; the same in every process that asks."""
    folder = data_dir.resolve() / "broker"
    socket = folder / "broker.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        return socket
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"inference-{os.getuid()}-{name}" / "broker.sock"


def _resolve(url: str, settings: Settings) -> str:
    return f"unix://{embedded_socket(settings.data_dir)}?db=0" if url == EMBEDDED else url


def broker_url(settings: Settings) -> str:
    """The broker as redis-py spells it."""
    return _resolve(settings.broker.url, settings)


def task_store_url(settings: Settings) -> str:
    """The record store as redis-py spells it."""
    return _resolve(settings.task_store.url or settings.broker.url, settings)


def kombu_url(settings: Settings) -> str:
    """The broker, Redis or RabbitMQ, as kombu spells it."""
    if settings.broker.is_amqp:
        return settings.broker.url
    url = urlsplit(broker_url(settings))
    options = dict(parse_qsl(url.query))
    database = options.pop("db", None)
    if url.scheme != "unix":
        path = url.path if database is None else f"/{database}"
        return urlunsplit((url.scheme, url.netloc, path, urlencode(options), ""))
    user = options.pop("username", unquote(url.username or ""))
    password = options.pop("password", unquote(url.password or ""))
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    return f"redis+socket://{credentials}{url.path}?{urlencode(options | {'virtual_host': database or '0'})}"


def connect(url: str) -> redis.Redis:
    """A client with bounded waits: a server that hangs is an error, not a hang."""
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3)
    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, health_check_interval=30, retry=retry)
