"""One server of this machine: installation, start, state and stop."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from dev.servers.console import ServicesError, log_tail, say
from dev.servers.layout import Layout
from dev.servers.ports import HOST, PortBook
from dev.servers.processes import Launch, ServerProcess

_POLL_INTERVAL_S = 0.2

Ports = Mapping[str, int]
State = Literal["up", "silent", "down"]


@dataclass(frozen=True)
class Kind:
    """Description of one kind of server."""

    name: str
    #: names of its ports; the first is the port for clients
    ports: tuple[str, ...]
    #: installs its programs; returns quickly if they are installed
    install: Callable[[Layout], None]
    #: writes its configuration, returns its command
    prepare: Callable[[Layout, Ports], Launch]
    #: checks whether it answers at the port for clients
    answers: Callable[[int], bool]
    stop_timeout_s: float = 20.0


class Server:
    """Server of one kind in the folder of this repository."""

    def __init__(self, kind: Kind, layout: Layout, book: PortBook) -> None:
        self.name = kind.name
        self._kind = kind
        self._layout = layout
        self._book = book
        self._process = ServerProcess(f"{kind.name}:{layout.base}", layout.pid_file(kind.name))

    def pid(self) -> int | None:
        return self._process.pid()

    def endpoint(self) -> str | None:
        """Return HOST:PORT for clients; None before the first start."""
        port = self._client_port()
        return f"{HOST}:{port}" if port else None

    def state(self) -> State:
        """Find the state; `silent` is a process that does not answer, because it still starts or hangs."""
        if self.pid() is None:
            return "down"
        return "up" if self._answers() else "silent"

    def bring_up(self, timeout_s: float) -> None:
        """Install and start the server if it is not up. Raises ServicesError."""
        if self.pid() is not None and self._wait_until_up(None, timeout_s):
            return
        self._kind.install(self._layout)
        self._process.sweep()
        ports = self._book.claim(self.name, self._kind.ports)
        home = self._layout.data(self.name)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._layout.settings(self.name).mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        process = self._process.spawn(self._kind.prepare(self._layout, ports), home=home, log=self._layout.log(self.name))
        say(f"{self.name}: starting at {self.endpoint()}")
        self._wait_until_up(process, timeout_s)
        process.returncode = 0  # otherwise subprocess would warn that it still runs, as intended
        say(f"{self.name}: up after {time.monotonic() - started:.1f} s")

    def stop(self) -> None:
        """End the server; its data are kept. Raises ServicesError."""
        was_up = self.pid() is not None
        if not self._process.stop(self._kind.stop_timeout_s):
            raise ServicesError("could not be ended; it may belong to another user")
        if was_up:
            say(f"{self.name}: stopped")

    def _wait_until_up(self, process: subprocess.Popen[bytes] | None, timeout_s: float) -> bool:
        """Wait for our process, or (None) for that of an earlier command; False if that one has ended."""
        deadline = time.monotonic() + timeout_s
        while not (self._answers() and self.pid() is not None):
            if process is not None and process.poll() is not None:
                reason = f"it ended by itself ({_ending(process.returncode)})"
            elif process is None and self.pid() is None:
                return False
            elif time.monotonic() > deadline:
                reason = f"it did not answer within {timeout_s:g} s"
            else:
                time.sleep(_POLL_INTERVAL_S)
                continue
            # An unusable server must not block the next start.
            self._process.stop(self._kind.stop_timeout_s)
            if process is not None:
                process.poll()
            raise ServicesError(f"did not start: {reason}; {log_tail(self._layout.log(self.name))}")
        return True

    def _answers(self) -> bool:
        port = self._client_port()
        return port is not None and self._kind.answers(port)

    def _client_port(self) -> int | None:
        return self._book.ports_of(self.name).get(self._kind.ports[0])


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
