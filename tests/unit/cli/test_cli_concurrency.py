"""Many calls at a time, and what happens when the service is down or full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from rohe_inference.cli.concurrency import Outage, Retries, complete_all
from rohe_inference.cli.exits import ServiceUnreachable


class Service:
    """Answers a call with its item, after the outages that are planned."""

    def __init__(self, outages: dict[int, list[Outage]]) -> None:
        self.outages = outages
        self.calls: list[int] = []
        self.running = 0
        self.most = 0

    async def call(self, item: int) -> int:
        self.calls.append(item)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.outages.get(item):
            raise self.outages[item].pop(0)
        return item * 10


def run(
    service: Service, items: list[int], *, retry_for_s: float = 60, clock: Callable[[], float] = lambda: 0.0
) -> tuple[dict[int, int], list[str]]:
    notices: list[str] = []

    async def collect() -> dict[int, int]:
        retries = Retries(retry_for_s, notices.append, clock)
        return {item: answer async for item, answer in complete_all(items, service.call, concurrency=3, retries=retries)}

    return asyncio.run(collect()), notices


def test_each_item_is_called_once_and_a_few_at_a_time() -> None:
    service = Service({})

    answers, notices = run(service, list(range(20)))

    assert answers == {item: item * 10 for item in range(20)}
    assert sorted(service.calls) == list(range(20))
    assert service.most == 3
    assert notices == []


def test_overload_is_waited_for_even_at_first() -> None:
    service = Service({0: [Outage("full", retry_after_s=0.01, is_overload=True)] * 3})

    answers, notices = run(service, [0, 1])

    assert answers == {0: 0, 1: 10}
    assert service.calls.count(0) == 4
    assert notices[0] == "the service is busy; waiting for room"
    assert notices[-1] == ""


def test_service_that_never_answered_is_an_error_at_once() -> None:
    with pytest.raises(ServiceUnreachable, match="no answer"):
        run(Service({item: [Outage("no answer")] for item in range(3)}), [0, 1, 2])


def test_outage_in_the_middle_is_waited_for() -> None:
    service = Service({5: [Outage("no answer", retry_after_s=0.01)] * 2})

    answers, notices = run(service, list(range(8)))

    assert len(answers) == 8
    assert "the service does not work; trying again for up to 60 s" in notices
    assert notices[-1] == ""


def test_outage_that_takes_too_long_is_an_error() -> None:
    now = iter(range(0, 10_000, 20))
    service = Service({5: [Outage("no answer", retry_after_s=0.001)] * 100})

    with pytest.raises(ServiceUnreachable, match="tried again for 60 s"):
        run(service, list(range(8)), clock=lambda: float(next(now)))

    assert 1 < service.calls.count(5) <= 5


def test_error_of_a_call_ends_the_run() -> None:
    async def call(item: int) -> int:
        if item == 1:
            raise ValueError(item)
        await asyncio.sleep(60)
        return item

    async def collect() -> None:
        async for _ in complete_all([0, 1, 2], call, concurrency=3, retries=Retries(60, lambda _: None)):
            pass

    with pytest.raises(ValueError, match="1"):
        asyncio.run(collect())
