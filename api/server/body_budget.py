"""Limit for the request bodies that a process holds at a time, as nginx and Envoy limit their buffers.

    Content-Length over 1 MiB     the whole length is reserved before a byte is read, so that a body is refused at once or never
    smaller, or sent in chunks    received bytes are counted, in steps of 64 KiB: a client that announces much and sends nothing
                                  uses nothing

Large bodies leave an eighth of the budget to small ones, so that small requests are served while uploads fill the rest.
"""

from __future__ import annotations

from inference.errors import PayloadTooLarge, ServiceUnavailable

#: Size above which a body is large.
LARGE_BODY_BYTES = 2**20
_SHARE_OF_LARGE = 7 / 8
_RETRY_AFTER_S = 5.0


class BodyBudget:
    """Budget for the bytes of bodies that requests and their handlers hold.

    Args:
        max_bytes: limit for all bodies together.

    Attributes:
        used: bytes that are held now.
        peak: maximum bytes that were held at a time since `take_released` last returned True.
    """

    def __init__(self, max_bytes: int) -> None:
        self.used = 0
        self.peak = 0
        self._max_bytes = max_bytes
        self._max_with_large = int(max_bytes * _SHARE_OF_LARGE)

    def has_room(self, size: int, *, is_large: bool = False) -> bool:
        """Whether there is room for `size` more bytes of a large or small body."""
        return self.used + size <= self._limit(is_large=is_large)

    def check_possible(self, size: int, *, is_large: bool) -> None:
        """Check that `size` bytes fit when nothing else is held. Raises PayloadTooLarge: they never fit."""
        if size > self._limit(is_large=is_large):
            raise PayloadTooLarge(f"{size} bytes are more than the service holds at a time (api.max_body_bytes_in_flight)")

    def check(self, size: int, *, is_large: bool) -> None:
        """Check that there is room for `size` more bytes. Raises ServiceUnavailable: there is none."""
        if not self.has_room(size, is_large=is_large):
            raise ServiceUnavailable("the service holds as many request bodies as it can", retry_after_s=_RETRY_AFTER_S)

    def _limit(self, *, is_large: bool) -> int:
        return self._max_with_large if is_large else self._max_bytes

    def add(self, size: int) -> None:
        """Count `size` more bytes, without a check."""
        self.used += size
        self.peak = max(self.peak, self.used)

    def take_released(self, least: int) -> bool:
        """Whether at least `least` bytes were released since the peak; if so, a new peak begins."""
        is_much = self.peak - self.used >= least
        if is_much:
            self.peak = self.used
        return is_much


class BodyReservation:
    """Part of the budget for one body.

    Args:
        length: the Content-Length; None if the body is sent in chunks.
    """

    def __init__(self, budget: BodyBudget, length: int | None) -> None:
        self._budget = budget
        self._length = length
        self._size = 0
        self._is_open = False

    def open(self) -> None:
        """Reserve the known length, before the first byte is read; a second call does nothing.

        Raises:
            ServiceUnavailable: there is no room for the body.
        """
        if self._is_open:
            return
        length = self._length or 0
        is_large = length > LARGE_BODY_BYTES
        self._budget.check(length, is_large=is_large)
        if is_large:
            self._add(length)
        self._is_open = True

    def grow(self, size: int) -> None:
        """Count `size` received bytes. Raises ServiceUnavailable: there is no room for them."""
        if self._length is None or self._length <= LARGE_BODY_BYTES:
            self._budget.check(size, is_large=self._size + size > LARGE_BODY_BYTES)
            self._add(size)

    def hold(self, size: int) -> None:
        """Count `size` bytes that its handler holds.

        Raises:
            ServiceUnavailable: there is no room for them now.
            PayloadTooLarge: there never is.
        """
        is_large = self._size + size > LARGE_BODY_BYTES
        self._budget.check_possible(size, is_large=is_large)
        self._budget.check(size, is_large=is_large)
        self._add(size)

    def release(self) -> None:
        """Return all bytes to the budget."""
        self._budget.used -= self._size
        self._size = 0

    def _add(self, size: int) -> None:
        self._size += size
        self._budget.add(size)
