"""A way to a real server that a test may cut and mend, or freeze and thaw, while the server goes on."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

Rewrite = Callable[[bytes], bytes]


class TcpProxy:
    """Listens on a port of its own and passes everything on.

    Args:
        server: HOST:PORT.
        rewrite: changes the server's answers, chunk by chunk.
    """

    def __init__(self, server: str, rewrite: Rewrite = bytes) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._rewrite = rewrite
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._is_open = False
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self.port = 0
        self.mend()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def mend(self) -> None:
        """Let connections through, at the port that it always had."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._is_open = True
        self._run(self._accept, listener)

    def freeze(self) -> None:
        """Pass nothing on: connections stay, new ones are taken, and nobody is answered."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on all that has come meanwhile."""
        self._flows.set()

    def cut(self) -> None:
        """End every connection and refuse new ones."""
        self.thaw()
        with self._lock:
            self._is_open = False
            cut, self._sockets = self._sockets, set()
            threads, self._threads = self._threads, []
        for one in cut:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a connection did not end"

    def _run(self, work: Callable[[socket.socket], None], one: socket.socket) -> None:
        with self._lock:
            if not self._is_open:  # accepted while the others were being cut
                one.close()
                return
            self._sockets.add(one)
            thread = threading.Thread(target=work, args=(one,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            with self._lock:
                self._sockets.add(server)
            answers = threading.Thread(target=self._pump, args=(server, client, self._rewrite), daemon=True)
            answers.start()
            self._pump(client, server, bytes)
            answers.join()

    def _pump(self, source: socket.socket, target: socket.socket, rewrite: Rewrite) -> None:
        """Until either side ends; then both do."""
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                self._flows.wait()
                target.sendall(rewrite(data))
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def kafka_proxy(bootstrap: str) -> TcpProxy:
    """A broker names its own address to its clients, which would then go past the proxy: there it gets the proxy's.

    Kafka's metadata has it as the text of the host and the port in four bytes, so that nothing changes its length.
    """
    host, _, port = bootstrap.rpartition(":")
    real = host.encode() + struct.pack(">i", int(port))
    proxy = TcpProxy(bootstrap, lambda data: data.replace(real, host.encode() + struct.pack(">i", proxy.port)))
    return proxy
