"""The cache of one answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fake_clock import FakeClock

from inference.runtime.ttl_cache import TtlCache


class Source:
    """A cache, and the server that it asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False
        self.clock = FakeClock()
        self.background: list[Callable[[], None]] = []
        self.cache = TtlCache(self.answer, max_age_s=1, background_age_s=3, clock=self.clock, run=self.background.append)

    def answer(self) -> int:
        self.asked += 1
        if self.fails:
            raise ConnectionError("down")
        return self.asked

    def run_background(self) -> None:
        calls, self.background[:] = list(self.background), []
        for call in calls:
            call()


@pytest.fixture
def source() -> Source:
    return Source()


def test_an_answer_is_given_again_until_it_is_old(source: Source) -> None:
    assert source.cache() == 1
    source.clock.advance(0.9)
    assert source.cache() == 1
    source.clock.advance(5)
    assert source.cache() == 2


def test_it_is_fetched_in_the_background_once(source: Source) -> None:
    source.cache()
    source.clock.advance(2)
    assert [source.cache(), source.cache()] == [1, 1]
    assert len(source.background) == 1
    source.run_background()
    assert source.cache() == 2
    assert source.background == []


def test_an_error_in_the_background_reaches_callers_once_the_answer_is_too_old(source: Source) -> None:
    source.cache()
    source.fails = True
    source.clock.advance(2)
    assert source.cache() == 1
    source.run_background()
    assert source.cache() == 1
    source.run_background()
    assert source.asked == 3
    source.clock.advance(2)
    with pytest.raises(ConnectionError):
        source.cache()
    source.fails = False
    assert source.cache() == 5


def test_an_answer_that_is_far_too_old_is_given_to_nobody(source: Source) -> None:
    source.cache()
    source.clock.advance(3600)
    source.fails = True
    for _ in range(2):
        with pytest.raises(ConnectionError):
            source.cache()
    assert source.asked == 3


def test_a_late_answer_does_not_replace_a_newer_one(source: Source) -> None:
    source.cache()
    source.clock.advance(2)
    assert source.cache() == 1
    slow, asked = source.background.pop(), source.answer

    def overtaken() -> int:
        source.cache._ask = asked
        source.clock.advance(0.5)
        source.cache.refresh()
        return 0

    source.cache._ask = overtaken
    slow()
    assert source.cache() == 2


def test_a_thread_that_cannot_be_started_is_tried_again(source: Source) -> None:
    source.cache()
    source.clock.advance(2)
    run, source.cache._run = source.cache._run, _no_thread
    with pytest.raises(RuntimeError):
        source.cache()
    source.cache._run = run
    source.cache()
    source.run_background()
    assert source.cache() == 2


def _no_thread(_: Callable[[], None]) -> None:
    raise RuntimeError("can't start new thread")


def test_without_an_answer_every_caller_asks(source: Source) -> None:
    source.fails = True
    for _ in range(2):
        with pytest.raises(ConnectionError):
            source.cache()
    assert source.asked == 2
    assert source.cache.last is None
