"""The real servers: whose CPU counts, and who stands still while others are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import psutil

#: By the real server's name: the variable that has its address.
_ADDRESSES = {
    "redis": "REDIS_URL",
    "minio": "MINIO_ENDPOINT",
    "mongodb": "MONGODB_URL",
    "kafka": "KAFKA_BOOTSTRAP",
    "rabbitmq": "AMQP_URL",
}


def server_processes(services: Mapping[str, str], names: Sequence[str]) -> dict[str, psutil.Process]:
    """The real servers by name: whoever listens at their address.

    One that runs in a container is not found: what listens for it on this machine only passes bytes on.

    Args:
        services: addresses, by the variables of build/services.env.
        names: of redis, minio, mongodb, kafka, rabbitmq.
    """
    ports = {_port(services[_ADDRESSES[name]]): name for name in names}
    found: dict[str, psutil.Process] = {}
    with suppress(psutil.AccessDenied):  # macOS tells root alone
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.pid:
                name = ports.get(connection.laddr.port)
                found |= {name: psutil.Process(connection.pid)} if name else {}
    return {name: process for name, process in found.items() if process.name() != "docker-proxy"}


@contextmanager
def only(services: Mapping[str, str], names: Sequence[str]) -> Iterator[None]:
    """All real servers but those of these names stand still for the block.

    Idle they are not: MinIO looks through what it has, a sixth of two cores after some ten thousand uploads, and takes them from
    whoever is measured beside it. A bench that is killed (SIGKILL) within the block leaves them so.
    """
    there = [name for name, variable in _ADDRESSES.items() if variable in services]
    others = server_processes(services, [name for name in there if name not in names]).values()
    try:
        for process in others:
            with suppress(psutil.Error):  # somebody else's
                process.suspend()
        yield
    finally:
        for process in others:
            with suppress(psutil.Error):
                process.resume()


def _port(address: str) -> int | None:
    """Of a URL, or of HOST:PORT."""
    return urlsplit(address if "://" in address else f"//{address}").port
