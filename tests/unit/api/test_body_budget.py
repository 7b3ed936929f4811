"""Budget for the bodies that a process takes at a time."""

from __future__ import annotations

import pytest
from gunicorn.http.body import LengthReader
from gunicorn.http.unreader import IterUnreader

from api.server.body_budget import LARGE_BODY_BYTES, BodyBudget, BodyReservation
from api.server.http_messages import HttpBody, count_no_body
from inference.errors import ServiceUnavailable

MIB = 2**20


def test_a_large_body_is_counted_by_its_length_before_it_comes() -> None:
    budget = BodyBudget(16 * MIB)
    first = BodyReservation(budget, 8 * MIB)
    first.open()
    first.grow(8 * MIB)
    assert budget.used == 8 * MIB
    with pytest.raises(ServiceUnavailable) as refused:
        BodyReservation(budget, 8 * MIB).open()
    assert refused.value.retry_after_s
    first.release()
    first.release()
    assert budget.used == 0
    BodyReservation(budget, 8 * MIB).open()


def test_small_ones_go_on_when_large_ones_have_taken_what_they_may() -> None:
    budget = BodyBudget(16 * MIB)
    BodyReservation(budget, 14 * MIB).open()
    with pytest.raises(ServiceUnavailable):
        BodyReservation(budget, LARGE_BODY_BYTES + 1).open()
    small = BodyReservation(budget, MIB)
    small.open()
    assert budget.used == 14 * MIB  # nothing of it has come
    small.grow(MIB)
    assert budget.used == 15 * MIB


@pytest.mark.parametrize("length", [None, MIB // 2])
def test_what_comes_of_others_is_counted_as_it_comes(length: int | None) -> None:
    budget = BodyBudget(2 * MIB)
    bodies = [BodyReservation(budget, length) for _ in range(8)]
    for body in bodies:
        body.open()
    for body in bodies[:4]:
        body.grow(MIB // 2)
    with pytest.raises(ServiceUnavailable):
        bodies[4].grow(1)
    assert budget.used == 2 * MIB
    for body in bodies:
        body.release()
    assert budget.used == 0


def test_chunks_become_a_large_body() -> None:
    budget = BodyBudget(4 * MIB)
    body = BodyReservation(budget, None)
    body.open()
    for _ in range(7):
        body.grow(MIB // 2)
    with pytest.raises(ServiceUnavailable):
        body.grow(1)
    assert budget.used == 3.5 * MIB


def test_what_a_handler_makes_of_a_body_counts() -> None:
    budget = BodyBudget(4 * MIB)
    body = BodyReservation(budget, 100)
    body.open()
    body.grow(100)
    body.hold(3 * MIB)
    assert budget.used == 3 * MIB + 100
    with pytest.raises(ServiceUnavailable):
        body.hold(MIB)
    body.release()
    assert budget.used == 0


def test_much_that_was_released_is_told_once() -> None:
    budget = BodyBudget(16 * MIB)
    bodies = [BodyReservation(budget, 4 * MIB) for _ in range(3)]
    for body in bodies:
        body.open()
    assert not budget.take_released(MIB)
    told = []
    for body in bodies:
        body.release()
        told.append(budget.take_released(8 * MIB))
    assert told == [False, True, False]


def test_a_body_that_is_passed_on_is_not_counted() -> None:
    budget = BodyBudget(2 * MIB)
    counted, passed_on = (HttpBody(LengthReader(IterUnreader([bytes(MIB)] * 4), 4 * MIB)) for _ in range(2))
    for body in (counted, passed_on):
        body.reserve_in(budget)
    count_no_body({"wsgi.input": passed_on})
    assert sum(len(piece) for piece in iter(lambda: passed_on.read(MIB), b"")) == 4 * MIB
    assert budget.peak == 0
    with pytest.raises(ServiceUnavailable):
        counted.read(1)
