"""Requests with keys that are not valid, counted by the address that sends them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from api.security.client_networks import network_of, read_address

#: Failures of an address in a window that are answered with 401; further ones get 429.
MAX_FAILURES = 10
WINDOW_S = 60.0
#: Addresses that are remembered; the one that failed first is forgotten for another.
_MAX_ADDRESSES = 10_000


class FailedKeys:
    """Failures of the last minute by address, in this process.

    Args:
        clock: tells seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: begin of the window and failures in it, by address or network; the window that began first is the first
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, address: str) -> float | None:
        """Note a failure; returns the seconds after which the address may fail again, None if it may now."""
        name, now_s = _name_of(address), self._clock()
        began_s, count = self._windows.get(name, (now_s, 0))
        if now_s - began_s >= WINDOW_S:
            self._windows.pop(name, None)
            began_s, count = now_s, 0
        if count >= MAX_FAILURES:
            return began_s + WINDOW_S - now_s
        self._windows[name] = (began_s, count + 1)
        while len(self._windows) > _MAX_ADDRESSES:
            self._windows.popitem(last=False)
        return None


def _name_of(sender: str) -> str:
    """Return the address or network of a sender; the text itself if it has none, as for a Unix socket."""
    address = read_address(sender)
    return sender if address is None else network_of(address)
