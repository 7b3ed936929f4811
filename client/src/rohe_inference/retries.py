"""Policy of retries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """When and how long a call is tried again.

    Only what is safe is sent again: reads, and submissions, which carry an Idempotency-Key.

    Attributes:
        max_elapsed_s: bound for all attempts of a call and the pauses between them, in seconds; 0 never tries again.
        first_delay_s: bound of the first pause; it doubles with each attempt, and the pause is a random part of it.
        max_delay_s: bound of a pause that the service does not ask for with `Retry-After`.
    """

    max_elapsed_s: float = 120.0
    first_delay_s: float = 0.25
    max_delay_s: float = 10.0


#: A call is sent once.
NO_RETRIES = RetryPolicy(max_elapsed_s=0)
