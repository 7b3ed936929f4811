"""Redis from Debian's package."""

from __future__ import annotations

import shutil

from dev.servers import probes
from dev.servers.installation import debian_package, require_program
from dev.servers.layout import Layout
from dev.servers.ports import HOST
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports


def _install(layout: Layout) -> None:
    debian_package(layout, "redis", "redis-server", lambda: shutil.which("redis-server"))


def _prepare(layout: Layout, ports: Ports) -> Launch:
    options = {
        "bind": HOST,
        "port": str(ports["client"]),
        "dir": str(layout.data("redis")),
        "appendonly": "yes",
        "save": "",
        # A process title would overwrite the environment, which identifies our processes.
        "set-proc-title": "no",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Launch([require_program("redis-server", "it is the Redis server (Debian: apt-get install redis-server)"), *arguments])


KIND = Kind("redis", ("client",), _install, _prepare, probes.redis)
