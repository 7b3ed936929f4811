"""Where the worker's life and Celery's meet."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.concurrency.solo import TaskPool
from celery.exceptions import WorkerShutdown
from celery.worker import state

import celeryconfig
from inference.container import Services
from inference.errors import ConfigurationError, InferenceError
from inference.launcher.server_checks import check_servers
from inference.launcher.start_checks import check_open_files, check_start
from inference.models.registry import ModelRegistry
from inference.runtime.heap import freeze_heap
from inference.runtime.process import use_batch_scheduling
from tasks.consumer.main_loop import MainLoop
from tasks.worker.redelivery import Redeliveries, TaskBurial
from tasks.worker.worker import InferenceWorker

logger = logging.getLogger(__name__)


def _should_stop() -> bool:
    return any(flag not in (None, False) for flag in (state.should_stop, state.should_terminate))


def _refused(error: InferenceError) -> WorkerShutdown:
    """The end of a worker that cannot start; the exit code is that of `server.py`."""
    for line in error.detail.splitlines():
        logger.critical("%s", line)
    return WorkerShutdown(2 if isinstance(error, ConfigurationError) else 1)


class InferenceStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """Starts before the consumer and stops after it, so that messages come only to a warm model and acknowledgements still go."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._worker: InferenceWorker | None = None
        self._main_loop = MainLoop()

    def start(self, parent: Any) -> None:
        if parent.pool_cls is not TaskPool:
            logger.critical("this worker runs without -P: its pool is solo, and batches run in the predictor process")
            raise WorkerShutdown(1)
        use_batch_scheduling()
        services = Services(celeryconfig.settings)
        queues = parent.app.amqp.queues.consume_from
        try:
            check_start(services.settings, "worker")
            check_open_files()
            check_servers(services.settings)
            described = services.descriptions.values()
            names = [model.name for model in described if model.queue in queues]
            models = ModelRegistry.load(services.settings, names)  # the files of others may be on other hosts alone
        except InferenceError as error:
            raise _refused(error) from error
        if not names:
            known = ", ".join(model.queue for model in described)
            logger.critical("none of the queues to consume from (%s) is a model's (%s)", ", ".join(queues), known)
            raise WorkerShutdown(1)
        worker = InferenceWorker(
            services.settings,
            list(models),
            store=services.store,
            objects=services.objects,
            presence=services.presence,
            desired=services.desired,
            files=services.model_files,
            models=models,
            rejected=services.rejected,
        )
        try:
            started = worker.start(_should_stop)
        except ConfigurationError as error:
            raise _refused(error) from error
        if not started:
            raise WorkerShutdown(0)
        self._worker = parent.inference = worker
        parent.inference_main_loop = self._main_loop
        parent.inference_redeliveries = Redeliveries(
            services.taken,
            worker.store_calls,
            self._main_loop,
            owner=worker.owner,
            max_deaths=services.settings.worker.max_attempts,
        )
        parent.inference_burial = TaskBurial(services.store, services.objects, worker.owner)
        freeze_heap()

    def stop(self, _parent: Any) -> None:
        """After the consumer: drain, acknowledge. What stays unacknowledged goes back as the channel closes."""
        if self._worker is not None:
            self._worker.stop()
            self._main_loop.run_pending()
            self._main_loop.publish_events()
            self._worker = None

    def terminate(self, parent: Any) -> None:
        self.stop(parent)
