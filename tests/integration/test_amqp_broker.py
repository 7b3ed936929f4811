"""The broker on a real RabbitMQ, by itself."""

from __future__ import annotations

import pytest
from amqp.exceptions import NotFound
from kombu import Connection
from support.samples import a_message, a_request
from support.waiting import until

from inference.broker.amqp import AmqpBroker, check_login
from inference.errors import ConfigurationError
from inference.settings import BrokerSettings


def test_asking_how_many_wait_makes_no_queue(services_env: dict[str, str], own_name: str) -> None:
    """The readiness probe asks like this, also before the first message."""
    url, queue = services_env["AMQP_URL"], f"predict.{own_name}"
    broker = AmqpBroker(BrokerSettings.model_validate({"url": url}))
    with Connection(url) as connection:
        assert broker.get_depth(queue) == 0
        with pytest.raises(NotFound):
            connection.channel().queue_declare(queue, passive=True)
        broker.publish(queue, a_message(a_request(queue=queue)))
        until(lambda: broker.get_depth(queue) == 1, "the message")
        connection.channel().queue_delete(queue)
        assert broker.get_depth(queue) == 0


@pytest.mark.parametrize("url", ["amqp://guest:a-secret@{server}//", "amqp://guest:guest@{server}/no-such-host"])
def test_a_login_that_is_refused_is_one_sentence(services_env: dict[str, str], url: str) -> None:
    server = services_env["AMQP_URL"].rpartition("@")[2].rstrip("/")
    with pytest.raises(ConfigurationError) as error:
        check_login(BrokerSettings.model_validate({"url": url.format(server=server)}))
    assert error.value.detail.startswith("broker.url: RabbitMQ refuses the login: ")
    assert "secret" not in error.value.detail
    assert "\n" not in error.value.detail


def test_a_server_that_is_down_is_waited_for(services_env: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    check_login(BrokerSettings.model_validate({"url": services_env["AMQP_URL"]}))
    assert caplog.messages == []
    check_login(BrokerSettings.model_validate({"url": "amqp://guest:a-secret@127.0.0.1:1//"}))
    assert "RabbitMQ does not answer" in caplog.text
    assert "secret" not in caplog.text
