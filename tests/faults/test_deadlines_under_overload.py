"""More requests than the service can do: accepted ones meet their deadline, and it does as much as without the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults.offered import Body, overload, photo_body, running, sustainable
from support.service import Service

pytestmark = [pytest.mark.process, pytest.mark.alone]

#: Far below what the table of docs/performance.md shows, and far above what a queue as long as the deadline gives (0 to 0.1).
_LEAST_MET, _LEAST_GOODPUT = 0.9, 0.5


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The default model: at 40 a second or so, a batch takes a good part of a deadline of two seconds."""
    with running({"sinks": []}) as started:
        yield started


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Body:
    return photo_body(tmp_path_factory.mktemp("photo"))


@pytest.fixture(scope="module")
def rate_per_s(service: Service, body: Body) -> float:
    return sustainable(service, body, seconds=6)


def test_what_is_accepted_meets_its_deadline(service: Service, body: Body, rate_per_s: float) -> None:
    found = overload(service, body, rate_per_s=2.5 * rate_per_s, seconds=10, deadline_s=2)
    assert found.errors == 0, found
    assert found.accepted < 0.8 * found.offered, found  # it was too much
    assert found.met_share >= _LEAST_MET, found
    assert found.goodput_per_s >= _LEAST_GOODPUT * rate_per_s, found


def test_clients_that_wait_as_they_are_told_are_accepted(service: Service, body: Body, rate_per_s: float) -> None:
    found = overload(service, body, rate_per_s=3 * rate_per_s, seconds=3, deadline_s=2, polite=True)
    assert found.returned > rate_per_s, found
    assert found.returned_accepted >= 0.5 * found.returned, found
    assert found.met_share >= _LEAST_MET, found
