"""The Celery application."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.app.defaults import DEFAULTS
from celery.signals import setup_logging

import celeryconfig
from inference.settings.variables import is_service_link
from inference.telemetry import configure_logging
from tasks import (
    claiming,
    control,  # noqa: F401 registers its commands
)
from tasks.consuming import register_predict_alone
from tasks.predict import PredictTask
from tasks.step import InferenceStep

for _name, _value in list(os.environ.items()):
    # Kubernetes sets FLOWER_PORT=tcp://… for a Service of that name, and Flower would take it for its port.
    if _name.startswith("FLOWER_") and is_service_link(_name, _value):
        del os.environ[_name]

claiming.install()
app = Celery("rohe-inference")
# `inspect conf` and Flower show all that is in it: the settings, which hold passwords, must not be.
app.config_from_object({name: value for name, value in vars(celeryconfig).items() if name in DEFAULTS})
app.steps["worker"].add(InferenceStep)
app.register_task(PredictTask())
register_predict_alone(app)


@setup_logging.connect  # type: ignore[untyped-decorator] # Celery has no types
def _log_as_the_rest_does(**_: Any) -> None:
    configure_logging(celeryconfig.settings.log, "worker")
