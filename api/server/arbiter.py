"""Stopping of an API without a connection that is refused or reset.

SIGTERM ──▶ not ready, Connection: close ──api.shutdown_delay_s──▶ no new connections ──▶ workers drain ──▶ end
            load balancers look elsewhere                            accepted ones are served
            meanwhile; all are served

Supervisors send SIGTERM to all processes (systemd, supervisord's stopasgroup). Workers that heeded it would leave the connections
that come meanwhile to nobody: the main process ends them with another signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
import signal
import socket
import struct
import time
from typing import Any

from gunicorn.arbiter import Arbiter

#: The main process's SIGTERM to a worker.
END_WORKER = signal.SIGUSR2
_LOOK_INTERVAL_S = 0.1
#: A handshake that has begun is over after this time.
_HANDSHAKE_S = 0.2
#: Linux; Python has no name for it.
_SO_ATTACH_FILTER = 26
#: A classic BPF program (code, jump if true, jump if false, operand) on the TCP header: a segment with SYN is dropped.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class StoppingArbiter(Arbiter):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's main process. Its application has `stopping`, a SharedFlag, and `shutdown_delay_s`."""

    def stop(self, graceful: bool = True) -> None:
        """End the workers.

        Args:
            graceful: serve on for a while first, and let them finish their requests.
        """
        if graceful and self.WORKERS:
            self.app.stopping.set()
            graceful = self._serve_on(self.app.shutdown_delay_s)
            for listener in self.LISTENERS:
                drop_new_handshakes(listener)
            graceful = graceful and self._serve_on(_HANDSHAKE_S)
        super().stop(graceful)

    def kill_worker(self, pid: int, sig: int) -> None:
        super().kill_worker(pid, END_WORKER if sig == signal.SIGTERM else sig)

    def _serve_on(self, seconds: float) -> bool:
        """Whether nobody asked for a quick end meanwhile."""
        ends_at = time.monotonic() + seconds
        while self.WORKERS and (left_s := ends_at - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                if self.SIG_QUEUE.get(timeout=min(left_s, _LOOK_INTERVAL_S)) in (signal.SIGINT, signal.SIGQUIT):
                    return False
            self.reap_workers()
        return True


def drop_new_handshakes(listener: Any) -> None:
    """Let a listening socket ignore new connections, whose clients try again; those under way complete.

    Closing it resets the connections that nobody has accepted: now all of them can be accepted before that. Nothing happens where
    the system has no such filters.
    """
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN))
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(instructions))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
