"""CPU time of the servers in use; the others are suspended meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from support.waiting import until

from bench.servers import server_processes, suspend_others

#: Listens, and says where.
SERVER = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("address", ["redis://:secret@127.0.0.1:{}/0", "redis://127.0.0.1:{}/0"])
def test_a_real_server_is_whoever_listens_at_its_address(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        services = {
            "REDIS_URL": address.format(server.getsockname()[1]),
            "KAFKA_BOOTSTRAP": f"127.0.0.1:{other.getsockname()[1]}",
        }
        found = server_processes(services, ["redis", "kafka"])
        assert {name: process.pid for name, process in found.items()} == {"redis": os.getpid(), "kafka": os.getpid()}
    assert server_processes(services, ["redis"]) == {}


@contextmanager
def a_server() -> Iterator[tuple[psutil.Process, str]]:
    """The process, and its address."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield psutil.Process(process.pid), f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def test_only_the_servers_that_are_named_run_until_the_block_has_ended() -> None:
    with ExitStack() as stack:
        kafka, kafka_address = stack.enter_context(a_server())
        redis, redis_address = stack.enter_context(a_server())
        services = {"KAFKA_BOOTSTRAP": kafka_address, "REDIS_URL": f"redis://{redis_address}/0"}
        with suspend_others(services, ["redis"]):
            until(lambda: kafka.status() == psutil.STATUS_STOPPED, "a server that stands still")
            assert redis.status() != psutil.STATUS_STOPPED
        until(lambda: kafka.status() != psutil.STATUS_STOPPED, "a server that goes on")
