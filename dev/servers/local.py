"""Servers as processes of this machine, started concurrently."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dev.servers.addresses import Credentials, addresses
from dev.servers.console import ServicesError, say
from dev.servers.layout import Layout
from dev.servers.ports import PortBook
from dev.servers.server import Kind, Server
from dev.servers.servers import KINDS, minio


class LocalServers:
    """All servers of a repository's folder."""

    def __init__(self, layout: Layout, kinds: Sequence[Kind] = KINDS) -> None:
        book = PortBook(layout.ports)
        self._layout = layout
        self._servers = [Server(kind, layout, book) for kind in kinds]

    def start(self, timeout_s: float) -> dict[str, str]:
        """Start all servers; returns their addresses. Raises ServicesError if one does not start; the others keep running."""
        for folder in (self._layout.programs, self._layout.stamp("any").parent, self._layout.log("any").parent):
            folder.mkdir(parents=True, exist_ok=True)
        self._for_all(lambda server: server.bring_up(timeout_s))
        endpoints = {server.name: server.endpoint() or "" for server in self._servers}
        return addresses(endpoints, Credentials(*minio.keys(self._layout)))

    def stop(self) -> None:
        self._for_all(Server.stop)

    def status(self) -> bool:
        """Print a table; returns whether all servers are up."""
        with ThreadPoolExecutor(len(self._servers)) as pool:
            states = list(pool.map(Server.state, self._servers))
        say(f"{'name':<10}{'state':<8}{'pid':<9}address")
        for server, state in zip(self._servers, states, strict=True):
            say(f"{server.name:<10}{state:<8}{server.pid() or '-':<9}{server.endpoint() or '-'}")
        return all(state == "up" for state in states)

    def _for_all(self, act: Callable[[Server], None]) -> None:
        failures: dict[str, str] = {}

        def run(server: Server) -> None:
            try:
                act(server)
            except ServicesError as error:
                failures[server.name] = str(error)
            except Exception:  # noqa: BLE001 an error in our code must not prevent the start of the others
                failures[server.name] = traceback.format_exc()
            if server.name in failures:
                say(f"{server.name}: failed; details follow after the others")

        # Daemon threads, so that Ctrl-C does not wait for them: the next command finds the servers that they started.
        threads = [threading.Thread(target=run, args=(server,), daemon=True) for server in self._servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise ServicesError("\n".join(f"{name}: {text}" for name, text in failures.items()))
