"""Policy of retries."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from rohe_inference.errors import ConnectionFailed
from rohe_inference.messages import Reply, Request
from rohe_inference.steps import Pause, Send, Steps


@dataclass(frozen=True)
class RetryPolicy:
    """Policy for repeated calls: which are tried again, when, and for how long.

    Only safe calls are sent again: reads, cancellations, and submissions, which carry an Idempotency-Key. A call is tried again
    after a broken connection, 408, 425, 429, 502, 503 and 504, never after another answer.

    Attributes:
        max_elapsed_s: seconds after the begin of a call in which attempts begin; 0 sends everything once.
        first_contact_s: the same for a service that has not answered this client before: an address that is wrong is told soon.
        first_delay_s: bound of the first pause; it doubles with each attempt, and the pause is a random part of it.
        max_delay_s: largest bound of a pause. If the service says `Retry-After`, that is the pause.
    """

    max_elapsed_s: float = 120.0
    first_contact_s: float = 5.0
    first_delay_s: float = 0.25
    max_delay_s: float = 10.0


#: Everything is sent once.
NO_RETRIES = RetryPolicy(max_elapsed_s=0)


class Retries:
    """Attempts of calls to one service."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`clock` tells seconds, `draw` gives a number from 0 to 1."""
        self.policy = policy
        self._clock = clock
        self._draw = draw
        self._has_answered = False

    def exchange(self, request: Request, *, max_elapsed_s: float | None = None) -> Steps[Reply]:
        """Send a request, again if that may help; gives the last answer, or raises the last ConnectionFailed.

        Args:
            max_elapsed_s: bound of this call, if it is less than that of the policy.
        """
        attempts = self.begin(max_elapsed_s)
        while True:
            outcome: Reply | ConnectionFailed
            try:
                outcome = yield Send(request)
            except ConnectionFailed as error:
                outcome = error
            delay_s = attempts.delay_after(outcome)
            if delay_s is not None:
                yield Pause(delay_s)
            elif isinstance(outcome, ConnectionFailed):
                raise outcome
            else:
                return outcome

    def begin(self, max_elapsed_s: float | None = None) -> Attempts:
        """Begin the attempts of one call."""
        bound_s = self.policy.max_elapsed_s if max_elapsed_s is None else min(max_elapsed_s, self.policy.max_elapsed_s)
        return Attempts(self, bound_s)

    def note_answer(self) -> None:
        """Note that the service exists at its address."""
        self._has_answered = True

    @property
    def has_answered(self) -> bool:
        """Whether the service has ever answered this client."""
        return self._has_answered

    def now(self) -> float:
        """Return seconds of a clock."""
        return self._clock()

    def backoff_s(self, failures: int) -> float:
        """Draw the pause after some failures in a row."""
        return self._draw() * min(self.policy.max_delay_s, self.policy.first_delay_s * 2.0 ** min(failures, 30))


class Attempts:
    """Attempts of one call."""

    def __init__(self, retries: Retries, bound_s: float) -> None:
        """Begin the time of `bound_s` seconds."""
        self._retries = retries
        self._bound_s = bound_s
        self._began = retries.now()
        self._failures = 0

    def delay_after(self, outcome: Reply | ConnectionFailed) -> float | None:
        """Return the seconds after which to try again; None if the outcome is final, or the time is over."""
        bound_s, asked_s = self._bound_s, None
        if isinstance(outcome, Reply):
            self._retries.note_answer()
            if not outcome.is_temporary():
                return None
            asked_s = outcome.retry_after_s()
        elif not self._retries.has_answered:
            bound_s = min(bound_s, self._retries.policy.first_contact_s)
        delay_s = self._retries.backoff_s(self._failures) if asked_s is None else asked_s
        self._failures += 1
        left_s = self._began + bound_s - self._retries.now()
        return delay_s if delay_s < left_s else None
