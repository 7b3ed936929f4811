"""Celery application with the predict task and the inference worker."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.defaults import DEFAULTS
from celery.signals import setup_logging

import celeryconfig
from inference.runtime.log import configure_logging
from inference.runtime.private_files import write_privately
from tasks import celery_variables, node_name  # noqa: F401 it is connected to a signal
from tasks.consumer import control  # noqa: F401 registers its commands
from tasks.consumer.consumer import unregister_celery_tasks
from tasks.consumer.step import InferenceStep
from tasks.flower import access, queues, variables
from tasks.predict import PredictTask

if celery_variables.is_celery_command():
    write_privately()
celery_variables.check_celery_options()
celery_variables.drop_celery_variables()
variables.drop_service_links()
if variables.is_flower():
    variables.check_flower_variables()
    access.protect_pages()
    queues.count_messages_of_owners()
if celeryconfig.settings.broker.transport == "claiming":
    # Imported only here: the other transport is for a kombu in which the private parts that this module uses have changed.
    from tasks.transport import claiming

    claiming.install()
app = Celery("rohe-inference")
# `inspect conf` and Flower show the whole configuration: it must not contain the settings, which hold passwords.
app.config_from_object({name: value for name, value in vars(celeryconfig).items() if name in DEFAULTS})
app.steps["worker"].add(InferenceStep)
app.register_task(PredictTask())
unregister_celery_tasks(app)


@setup_logging.connect  # type: ignore[untyped-decorator] # Celery has no types
def _configure_logging(**_: Any) -> None:
    configure_logging(celeryconfig.settings.log, "worker")
