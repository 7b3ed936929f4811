"""Celery's name of a worker: without `-n` it differs for each start."""

from __future__ import annotations

import secrets
from typing import Any

import click
from celery.signals import celeryd_init
from click.core import ParameterSource

#: The parameter of `celery worker` that `-n` sets.
_PARAMETER = "hostname"


@celeryd_init.connect  # type: ignore[untyped-decorator] # Celery has no types
def make_name_unique(instance: Any, **_: Any) -> None:
    """Extend the default name, celery@HOST, by a random suffix; a name that the user chose stays.

    RabbitMQ gives the queue of a worker's remote control, which has the worker's name, to one connection alone: it would refuse a
    second worker of this host, and one that starts before RabbitMQ has noticed the end of the last (405 RESOURCE_LOCKED).
    """
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(_PARAMETER) if context is not None else None
    if source in (None, ParameterSource.DEFAULT):
        instance.hostname = f"{instance.hostname}-{secrets.token_hex(4)}"
