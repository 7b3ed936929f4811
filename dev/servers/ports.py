"""Loopback ports of the servers: chosen once and stored, and chosen again if another process uses them."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

HOST = "127.0.0.1"
#: Below Linux's range for outgoing connections: one of those could use the port of a stopped server, and a client that
#: connects to a closed port of that range can even be connected to itself.
_CHOICE = range(20_000, 30_000)


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


class PortBook:
    """Ports of each server by name, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def ports_of(self, server: str) -> dict[str, int]:
        """Read the chosen ports; empty before the first start."""
        with self._lock:
            return self._read().get(server, {})

    def claim(self, server: str, names: Iterable[str]) -> dict[str, int]:
        """Choose free ports for a server that is about to start: the previous ones if they are still free."""
        with self._lock:
            book = self._read()
            known = book.get(server, {})
            taken = {port for ports in book.values() for port in ports.values()}
            chosen: dict[str, int] = {}
            for name in names:
                port = known.get(name)
                chosen[name] = port if port is not None and is_free(port) else _choose(taken)
                taken.add(chosen[name])
            book[server] = chosen
            self._path.write_text(json.dumps(book, indent=2) + "\n", encoding="utf-8")
        return chosen

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            book: dict[str, dict[str, int]] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return book


def _choose(taken: set[int]) -> int:
    while True:
        port = secrets.choice(_CHOICE)
        if port not in taken and is_free(port):
            return port
