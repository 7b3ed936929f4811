"""Names of workers on the real RabbitMQ, which gives a name to one connection alone."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from amqp.exceptions import ResourceLocked
from celery import Celery

from tasks.node_name import make_name_unique

pytestmark = pytest.mark.services


def default_name(host: str) -> str:
    """The name of a worker that is started without `-n`."""
    instance = SimpleNamespace(hostname=f"celery@{host}")
    make_name_unique(instance)
    return str(instance.hostname)


@pytest.mark.parametrize("name", [default_name, lambda host: f"celery@{host}"], ids=["ours", "celery's"])
def test_a_second_worker_of_a_host_gets_its_control_queue(services_env: dict[str, str], name: Callable[[str], str]) -> None:
    """RabbitMQ refuses Celery's own default: this test would notice if that were no longer needed."""
    host = f"host-{uuid.uuid4().hex[:8]}"
    with Celery(broker=services_env["AMQP_URL"]) as app, app.connection() as first, app.connection() as second:
        refused = contextlib.nullcontext() if name is default_name else pytest.raises(ResourceLocked)
        app.control.mailbox.Node(name(host), channel=first.channel()).listen(callback=lambda *_: None)
        with refused:
            app.control.mailbox.Node(name(host), channel=second.channel()).listen(callback=lambda *_: None)
