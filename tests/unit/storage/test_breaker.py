"""The circuit breaker: one time-out spares the others the wait, and one answer ends that."""

from __future__ import annotations

import pytest
from support.fake_clock import FakeClock

from inference.storage.breaker import Breaker, ServerIsSilentError

PAUSE_S = 5.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(PAUSE_S, is_timeout=lambda error: isinstance(error, TimeoutError), clock=clock)


def time_out(breaker: Breaker) -> None:
    with pytest.raises(TimeoutError), breaker.guard():
        raise TimeoutError


def is_asked(breaker: Breaker) -> bool:
    try:
        with breaker.guard():
            return True
    except ServerIsSilentError:
        return False


def test_after_a_time_out_calls_fail_at_once_until_the_pause_is_over(breaker: Breaker, clock: FakeClock) -> None:
    assert is_asked(breaker)
    time_out(breaker)
    assert not is_asked(breaker)
    clock.advance(PAUSE_S - 0.1)
    assert not is_asked(breaker)
    clock.advance(0.2)
    assert is_asked(breaker)
    assert is_asked(breaker)


def test_one_call_alone_tries_a_server_that_was_silent(breaker: Breaker, clock: FakeClock) -> None:
    time_out(breaker)
    clock.advance(PAUSE_S + 0.1)
    with breaker.guard():
        assert not is_asked(breaker)
    assert is_asked(breaker)


def test_a_try_that_times_out_begins_the_pause_again(breaker: Breaker, clock: FakeClock) -> None:
    time_out(breaker)
    clock.advance(PAUSE_S + 0.1)
    time_out(breaker)
    clock.advance(PAUSE_S - 0.1)
    assert not is_asked(breaker)


def test_an_error_that_is_an_answer_is_no_time_out(breaker: Breaker) -> None:
    with pytest.raises(ConnectionRefusedError), breaker.guard():
        raise ConnectionRefusedError
    assert is_asked(breaker)
