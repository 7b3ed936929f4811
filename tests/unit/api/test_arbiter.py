"""A listening socket on its last way: who came is accepted, and nobody comes any more who would be reset when it is closed."""

from __future__ import annotations

import socket
import sys

import pytest

from api.server.arbiter import drop_new_handshakes


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_new_connections_wait_and_old_ones_are_served(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as listener, socket.socket(family) as early, socket.socket(family) as late:
        listener.bind((host, 0))
        listener.listen()
        early.connect(listener.getsockname())
        drop_new_handshakes(listener)
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"served")
            assert early.recv(6) == b"served"
            early.sendall(b"too")
            assert accepted.recv(3) == b"too"
