"""Real servers: their processes, to count CPU time, and suspension of the servers that a measurement does not use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import psutil

#: Variable of the address, by name of the real server.
_ADDRESSES = {
    "redis": "REDIS_URL",
    "minio": "MINIO_ENDPOINT",
    "mongodb": "MONGODB_URL",
    "kafka": "KAFKA_BOOTSTRAP",
    "rabbitmq": "AMQP_URL",
}


def server_processes(services: Mapping[str, str], names: Sequence[str]) -> dict[str, psutil.Process]:
    """Find the processes that listen at the addresses of the real servers, by name.

    A server in a container is not found: the process that listens for it on this machine only forwards bytes.

    Args:
        services: addresses, by the variables of build/services.env.
        names: some of redis, minio, mongodb, kafka, rabbitmq.
    """
    ports = {_port(services[_ADDRESSES[name]]): name for name in names}
    found: dict[str, psutil.Process] = {}
    with suppress(psutil.AccessDenied):  # macOS allows this only for root
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.pid:
                name = ports.get(connection.laddr.port)
                found |= {name: psutil.Process(connection.pid)} if name else {}
    return {name: process for name, process in found.items() if process.name() != "docker-proxy"}


@contextmanager
def suspend_others(services: Mapping[str, str], names: Sequence[str]) -> Iterator[None]:
    """Suspend all real servers except the named ones for the block.

    Unused servers are not idle: MinIO scans its objects, which takes a sixth of two cores after about ten thousand uploads, and
    this would distort measurements. If the benchmark is killed (SIGKILL) within the block, the servers stay suspended.
    """
    there = [name for name, variable in _ADDRESSES.items() if variable in services]
    others = server_processes(services, [name for name in there if name not in names]).values()
    try:
        for process in others:
            with suppress(psutil.Error):  # a process of another user
                process.suspend()
        yield
    finally:
        for process in others:
            with suppress(psutil.Error):
                process.resume()


def _port(address: str) -> int | None:
    """Parse the port of a URL, or of HOST:PORT."""
    return urlsplit(address if "://" in address else f"//{address}").port
