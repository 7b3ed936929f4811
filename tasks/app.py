"""The Celery application."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import setup_logging

import celeryconfig
from inference.telemetry import configure_logging
from tasks import claiming
from tasks.predict import PredictTask
from tasks.step import InferenceStep

claiming.install()
app = Celery("rohe-inference")
app.config_from_object(celeryconfig)
app.steps["worker"].add(InferenceStep)
app.register_task(PredictTask())


@setup_logging.connect  # type: ignore[untyped-decorator] # Celery has no types
def _log_as_the_rest_does(**_: Any) -> None:
    configure_logging(celeryconfig.settings.log, "worker")
