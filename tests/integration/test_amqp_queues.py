"""Queues on RabbitMQ by the server's version. The server of the tests is older than 4.3, so a newer one is pretended here:

what it would do with priorities on a quorum queue is shown by its calls alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection
from support.samples import a_message, a_request

from inference.broker.amqp import AmqpBroker, predict_queue
from inference.broker.amqp_queues import has_strict_priorities
from inference.errors import ServiceUnavailable
from inference.settings import BrokerSettings

WITH_PRIORITIES = {"x-queue-type": "quorum", "x-max-priority": 9}


@pytest.fixture
def url(services_env: dict[str, str]) -> str:
    return services_env["AMQP_URL"]


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Connection(url) as connection:
        connection.connect()
        yield connection


@pytest.fixture
def queue(connection: Connection, own_name: str) -> Iterator[str]:
    yield f"predict.{own_name}"
    connection.channel().queue_delete(f"predict.{own_name}")


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says that it is 4.3."""
    monkeypatch.setattr("inference.broker.amqp_queues.has_strict_priorities", lambda _: True)
    monkeypatch.setattr("inference.broker.amqp.has_strict_priorities", lambda _: True)


def broker(url: str, queue_type: str = "quorum") -> AmqpBroker:
    return AmqpBroker(BrokerSettings.model_validate({"url": url, "queue_type": queue_type}))


class Server:
    """A connection to a RabbitMQ of a version; notes the declarations."""

    def __init__(self, version: str) -> None:
        self.server_properties = {"version": version}
        self.declared: list[tuple[str, Any]] = []

    def channel(self) -> Server:
        return self

    @property
    def connection(self) -> Server:
        return self

    def prepare_queue_arguments(self, arguments: Any, **_: Any) -> Any:
        return arguments

    def queue_declare(self, queue: str, *, arguments: Any, **_: Any) -> tuple[str, int, int]:
        self.declared.append((queue, arguments))
        return queue, 0, 0

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("version", "expected"),
    [("3.10.8", False), ("4.2.9", False), ("4.3.0-rc.1", True), ("4.10.0", True), ("5.0", True), ("", False), ("new", False)],
)
def test_the_version_says_whether_quorum_queues_have_priorities(version: str, expected: bool) -> None:
    server = Server(version)
    assert has_strict_priorities(server) is expected
    queue = predict_queue("predict.x", BrokerSettings.model_validate({"url": "amqp://host"}))
    queue.queue_declare(channel=server)
    last = WITH_PRIORITIES if expected else {"x-queue-type": "quorum"}
    assert server.declared[-1] == ("predict.x", last)
    assert queue.has_priorities is expected


def test_the_server_of_the_tests_has_no_priorities_on_quorum_queues(url: str, queue: str, connection: Connection) -> None:
    ours = broker(url)
    assert ours.has_priorities is False
    ours.publish(queue, a_message(a_request(queue=queue)), 5)
    assert connection.channel().basic_get(queue).properties.get("priority") is None
    classic = broker(url, "classic")
    assert classic.has_priorities is True


@pytest.mark.usefixtures("newer")
def test_a_queue_without_priorities_keeps_the_order_of_acceptance(
    url: str, queue: str, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """This server refuses to make a quorum queue with `x-max-priority`, with the error that 4.3 has for one made without it."""
    ours = broker(url)
    assert ours.has_priorities is True  # no queue is known yet
    for _ in range(2):
        ours.publish(queue, a_message(a_request(queue=queue)), 5)
    assert ours.has_priorities is False
    assert ours.get_depth(queue) == 2
    (warning,) = caplog.messages
    assert warning.startswith(f"the queue {queue} has no priorities, since it was made without them: PRECONDITION_FAILED")
    taken = connection.channel().basic_get(queue)
    assert taken.properties.get("priority") is None


def test_a_worker_declares_such_a_queue_as_it_is() -> None:
    class Upgraded(Server):
        def queue_declare(self, queue: str, *, arguments: Any, **options: Any) -> tuple[str, int, int]:
            if "x-max-priority" in arguments:
                raise PreconditionFailed("inequivalent arg 'x-max-priority'")
            return super().queue_declare(queue, arguments=arguments, **options)

    server = Upgraded("4.3.1")
    queue = predict_queue("predict.x", BrokerSettings.model_validate({"url": "amqp://host"}))
    queue.queue_declare(channel=server)
    assert server.declared == [("predict.x", {"x-queue-type": "quorum"})]
    assert queue.has_priorities is False


def test_a_queue_of_another_type_is_named(url: str, queue: str, connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    broker(url, "classic").publish(queue, a_message(a_request(queue=queue)))
    with pytest.raises(ServiceUnavailable, match="PRECONDITION_FAILED"):
        broker(url).publish(queue, a_message(a_request(queue=queue)))
    assert f"the queue {queue} exists with other arguments than broker.queue_type" in caplog.text
    with pytest.raises(PreconditionFailed):
        predict_queue(queue, BrokerSettings.model_validate({"url": url}))(connection.channel()).declare()


def test_asking_for_priorities_makes_no_queue(url: str, queue: str, connection: Connection) -> None:
    assert broker(url).has_priorities is False
    with pytest.raises(NotFound):
        connection.channel().queue_declare(queue, passive=True)
