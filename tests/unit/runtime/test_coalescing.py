"""Concurrent calls are coalesced; each caller gets its own answer or error."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from inference.errors import ServiceUnavailable
from inference.runtime.coalescing import CallCoalescer


class Server:
    """Doubles numbers, many at a time; `gate` holds its calls up."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def double(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        assert self.gate.wait(10)
        if 13 in numbers:
            raise ValueError("unlucky")
        if -1 in numbers:
            raise ServiceUnavailable("down")
        return [2 * number for number in numbers]


def begun(server: Server, calls: int) -> None:
    deadline = time.monotonic() + 10
    while len(server.calls) < calls:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def together(pool: Executor, server: Server, coalescer: CallCoalescer[int, int], *numbers: int) -> list[Future[int]]:
    """The first is under way when the others come; all are there before it has its answer."""
    server.gate.clear()
    first = pool.submit(coalescer, numbers[0])
    begun(server, 1)
    others = [pool.submit(coalescer, number) for number in numbers[1:]]
    while len(coalescer._waiting) < len(others):
        time.sleep(0.001)
    server.gate.set()
    return [first, *others]


def test_one_alone_is_called_at_once() -> None:
    server = Server()
    coalescer = CallCoalescer(server.double)
    assert [coalescer(number) for number in (1, 2)] == [2, 4]
    assert server.calls == [[1], [2]]


def test_who_comes_meanwhile_shares_the_next_call() -> None:
    server = Server()
    with ThreadPoolExecutor(20) as pool:
        answers = together(pool, server, CallCoalescer(server.double), *range(10))
        assert [answer.result(10) for answer in answers] == [2 * number for number in range(10)]
    assert server.calls[0] == [0]
    assert sorted(server.calls[1]) == list(range(1, 10))
    assert len(server.calls) == 2


def test_a_call_has_no_more_than_it_may() -> None:
    server = Server()
    with ThreadPoolExecutor(20) as pool:
        answers = together(pool, server, CallCoalescer(server.double, max_weight=3), *range(9))
        assert [answer.result(10) for answer in answers] == [2 * number for number in range(9)]
    assert [len(call) for call in server.calls] == [1, 3, 3, 2]


def test_what_is_heavy_fills_a_call_and_what_is_too_heavy_goes_alone() -> None:
    server = Server()
    with ThreadPoolExecutor(20) as pool:
        answers = together(
            pool, server, CallCoalescer(server.double, weigh=lambda number: number, max_weight=10), *[1, 4, 4, 50, 4, 4]
        )
        assert [answer.result(10) for answer in answers] == [2, 8, 8, 100, 8, 8]
    assert all(sum(call) <= 10 or call == [50] for call in server.calls)


def test_a_call_weighs_no_more_of_those_who_wait_than_may_go_with_it() -> None:
    server, weighed = Server(), []

    def weigh(number: int) -> int:
        weighed.append(number)
        return 1

    with ThreadPoolExecutor(50) as pool:
        for answer in together(pool, server, CallCoalescer(server.double, weigh=weigh, max_weight=4), *range(20, 61)):
            answer.result(10)
    assert len(weighed) < 2 * 41  # not all of them each time


def test_an_error_of_one_argument_reaches_its_caller_alone() -> None:
    server = Server()
    coalescer = CallCoalescer(server.double)
    with ThreadPoolExecutor(20) as pool:
        first, before, unlucky, after = together(pool, server, coalescer, 0, 12, 13, 14)
        assert [one.result(10) for one in (first, before, after)] == [0, 24, 28]
        with pytest.raises(ValueError, match="unlucky"):
            unlucky.result(10)
    assert coalescer(5) == 10


def test_an_outage_is_an_error_of_all_and_the_next_call_goes_on() -> None:
    server = Server()
    coalescer = CallCoalescer(server.double)
    with ThreadPoolExecutor(20) as pool:
        first, *others = together(pool, server, coalescer, 0, 12, -1)
        assert first.result(10) == 0
        errors = [one.exception(10) for one in others]
    assert [str(error) for error in errors] == ["down", "down"]
    assert errors[0] is not errors[1]
    assert len(server.calls) == 2, "no caller asks a server that is down again"
    assert coalescer(5) == 10


def test_an_answer_too_few_is_an_error_of_all() -> None:
    coalescer: CallCoalescer[int, int] = CallCoalescer(lambda _: [])
    with pytest.raises(ValueError, match="zip"):
        coalescer(1)


def test_thousands_from_many_threads_each_get_their_own() -> None:
    server = Server()
    coalescer = CallCoalescer(server.double)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(coalescer, [*range(14, 4000)])) == [2 * number for number in range(14, 4000)]
    assert sorted(number for call in server.calls for number in call) == [*range(14, 4000)]


def test_an_error_keeps_nothing_of_its_caller() -> None:
    """An image, say, until garbage is collected."""
    held: list[weakref.ref[threading.Event]] = []

    def call() -> None:
        image = threading.Event()
        held.append(weakref.ref(image))
        CallCoalescer(Server().double)(13)

    gc.disable()
    try:
        with pytest.raises(ValueError, match="unlucky"):
            call()
        assert held[0]() is None
    finally:
        gc.enable()


KILLED = """
    from gevent import monkey
    monkey.patch_all()
    import sys, gevent
    from gevent.event import Event
    from inference.runtime.coalescing import CallCoalescer

    killed, gates, calls = sys.argv[1], [Event() for _ in range(9)], []

    def call(numbers):
        calls.append(list(numbers))
        gates[len(calls) - 1].wait()
        if killed == "chosen leader" and 1 in numbers:
            second.kill(block=False)  # arrives after it was chosen, and before it runs
        return numbers

    coalescer = CallCoalescer(call)
    first = gevent.spawn(coalescer, 1)
    gevent.idle()
    second, third = gevent.spawn(coalescer, 2), gevent.spawn(coalescer, 3)
    gevent.idle()
    match killed:
        case "leader of one":
            first.kill()
        case "waiting":
            second.kill()
        case "leader of several" | "follower, then its leader":
            gates[0].set()
            while len(calls) < 2:
                gevent.idle()
            if killed != "leader of several":
                third.kill()
            second.kill()
    for gate in gates:
        gate.set()
    with gevent.Timeout(5):
        fourth = gevent.spawn(coalescer, 4)
        results = [one.get() for one in (first, second, third, fourth)]
        print(["killed" if isinstance(one, gevent.GreenletExit) else one for one in results], coalescer(5))
"""


@pytest.mark.parametrize(
    ("killed", "results"),
    [
        ("leader of one", "['killed', 2, 3, 4]"),
        ("waiting", "[1, 'killed', 3, 4]"),
        ("chosen leader", "[1, 'killed', 3, 4]"),
        ("leader of several", "[1, 'killed', 3, 4]"),
        ("follower, then its leader", "[1, 'killed', 'killed', 4]"),
    ],
)
def test_a_greenlet_that_is_killed_takes_no_other_with_it(repository: Path, killed: str, results: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), killed]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"{results} 5\n", done.stderr


def test_the_end_of_the_leader_leaves_the_others_to_the_next_call() -> None:
    class Completion(BaseException):
        pass

    server, pool = Server(), ThreadPoolExecutor(20)
    calls: list[int] = []

    def call(numbers: Sequence[int]) -> list[int]:
        calls.append(len(numbers))
        answers = server.double(numbers)
        if len(calls) == 2:
            raise Completion
        return answers

    with pool:
        answers = together(pool, server, CallCoalescer(call), 0, 1, 2, 3)
        errors = [one.exception(10) for one in answers]
        ended = [at for at, error in enumerate(errors) if error is not None]
        assert [type(errors[at]) for at in ended] == [Completion]
        assert {one.result(10) for at, one in enumerate(answers) if at not in ended} < {0, 2, 4, 6}
    assert calls == [1, 3, 2]
