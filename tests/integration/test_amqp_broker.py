"""The broker on a real RabbitMQ, by itself."""

from __future__ import annotations

import pytest
from amqp.exceptions import NotFound
from kombu import Connection
from support.samples import a_message, a_request
from support.waiting import until

from inference.broker.amqp import AmqpBroker
from inference.settings import BrokerSettings


def test_asking_how_many_wait_makes_no_queue(services_env: dict[str, str], own_name: str) -> None:
    """As the readiness probe does, also before the first message."""
    url, queue = services_env["AMQP_URL"], f"predict.{own_name}"
    broker = AmqpBroker(BrokerSettings.model_validate({"url": url}))
    with Connection(url) as connection:
        assert broker.depth(queue) == 0
        with pytest.raises(NotFound):
            connection.channel().queue_declare(queue, passive=True)
        broker.publish(queue, a_message(a_request(queue=queue)))
        until(lambda: broker.depth(queue) == 1, "the message")
        connection.channel().queue_delete(queue)
        assert broker.depth(queue) == 0
