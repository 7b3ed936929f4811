"""Stop of an API without refused or reset connections.

SIGTERM ──▶ not ready, Connection: close ──api.shutdown_delay_s──▶ no new connections ──▶ workers drain ──▶ end
            all requests are served;                                 accepted ones are served
            load balancers choose others

Supervisors send SIGTERM to all processes (systemd, supervisord's stopasgroup). If workers obeyed it, no process would serve the
connections that come meanwhile. Therefore workers ignore it, and the main process ends them with another signal.
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

#: The signal with which the main process ends a worker, in place of SIGTERM.
END_WORKER = signal.SIGUSR2
_POLL_INTERVAL_S = 0.1
#: Seconds after which a handshake that has begun is complete.
_HANDSHAKE_S = 0.2
#: Linux's number of the socket option, for which Python has no name.
_SO_ATTACH_FILTER = 26
#: A classic BPF program (code, jump if true, jump if false, operand) on the TCP header: it drops segments with SYN.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class StoppingArbiter(Arbiter):  # type: ignore[misc] # gunicorn has no types
    """Main process of gunicorn, whose application has `stopping`, a SharedFlag, and `shutdown_delay_s`."""

    def stop(self, graceful: bool = True) -> None:
        """End the workers.

        Args:
            graceful: first continue to serve for a while, and let the workers finish their requests.
        """
        if graceful and self.WORKERS:
            self.app.stopping.set()
            graceful = self._keep_serving(self.app.shutdown_delay_s)
            for listener in self.LISTENERS:
                drop_new_handshakes(listener)
            graceful = graceful and self._keep_serving(_HANDSHAKE_S)
        super().stop(graceful)

    def kill_worker(self, pid: int, sig: int) -> None:
        super().kill_worker(pid, END_WORKER if sig == signal.SIGTERM else sig)

    def _keep_serving(self, seconds: float) -> bool:
        """Continue for so many seconds; returns False if a signal asked for a quick end."""
        ends_at = time.monotonic() + seconds
        while self.WORKERS and (left_s := ends_at - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                if self.SIG_QUEUE.get(timeout=min(left_s, _POLL_INTERVAL_S)) in (signal.SIGINT, signal.SIGQUIT):
                    return False
            self.reap_workers()
        return True


def drop_new_handshakes(listener: Any) -> None:
    """Let a listening socket ignore new connections, whose clients try again; handshakes that have begun complete.

    Closing the socket would reset connections that are not accepted yet; after this call, all of them can be accepted first. The
    call has no effect if the system has no such filters.
    """
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN))
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(instructions))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
