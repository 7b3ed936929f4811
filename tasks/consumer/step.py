"""Bootstep that starts and stops the inference worker with Celery's worker."""

from __future__ import annotations

import logging
from collections.abc import Collection
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
from inference.runtime.cpu import use_batch_scheduling
from inference.runtime.heap import freeze_heap
from inference.status.monitoring import start_monitoring
from tasks.consumer.main_loop import MainLoop
from tasks.worker.health import WorkerHealth
from tasks.worker.redelivery import MessageDeadLetters, Redeliveries
from tasks.worker.worker import InferenceWorker

logger = logging.getLogger(__name__)


def _should_stop() -> bool:
    return any(flag not in (None, False) for flag in (state.should_stop, state.should_terminate))


def _shutdown(error: InferenceError) -> WorkerShutdown:
    """Log why the worker cannot start, and return the exception that ends it, with the exit code that `server.py` has."""
    for line in error.detail.splitlines():
        logger.critical("%s", line)
    return WorkerShutdown(2 if isinstance(error, ConfigurationError) else 1)


def _load_models(services: Services, queues: Collection[str]) -> ModelRegistry:
    """Check the needs of the worker, and return the models of its queues.

    Raises:
        WorkerShutdown: a check failed, or no queue is the queue of a model; the reason is logged.
    """
    try:
        check_start(services.settings, "worker")
        check_open_files()
        check_servers(services.settings)
        described = services.descriptions.values()
        names = [model.name for model in described if model.queue in queues]
        models = ModelRegistry.load(services.settings, names)  # files of other models may exist only on other hosts
    except InferenceError as error:
        raise _shutdown(error) from error
    if not names:
        known = ", ".join(model.queue for model in described)
        logger.critical("none of the queues to consume from (%s) is the queue of a model (%s)", ", ".join(queues), known)
        raise WorkerShutdown(1)
    return models


def _make_worker(services: Services, models: ModelRegistry) -> InferenceWorker:
    return InferenceWorker(
        services.settings,
        list(models),
        store=services.store,
        objects=services.objects,
        presence=services.presence,
        desired=services.desired,
        files=services.model_files,
        models=models,
        rejected=services.rejected,
        tracer=services.tracer,
    )


def _start_monitoring(services: Services, health: WorkerHealth) -> None:
    """Serve metrics and probes, also while the models load. Raises WorkerShutdown; the reason is logged."""
    try:
        start_monitoring(services, health, "worker")
    except ConfigurationError as error:
        raise _shutdown(error) from error


class InferenceStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """Starts before the consumer, so that messages find a warm model; stops after it, so that they can be acknowledged."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._worker: InferenceWorker | None = None
        self._main_loop = MainLoop()
        self._health = WorkerHealth(
            is_stopping=_should_stop, stuck=self._main_loop.watch.stuck, consumption=self._main_loop.consumption
        )

    def start(self, parent: Any) -> None:
        if parent.pool_cls is not TaskPool:
            logger.critical("this worker must run without -P: its pool is solo, and batches run in the predictor process")
            raise WorkerShutdown(1)
        use_batch_scheduling()
        services = Services(celeryconfig.settings, role="worker")
        _start_monitoring(services, self._health)
        worker = _make_worker(services, _load_models(services, parent.app.amqp.queues.consume_from))
        try:
            started = worker.start(_should_stop)
        except ConfigurationError as error:
            raise _shutdown(error) from error
        if not started:
            raise WorkerShutdown(0)
        self._worker = self._health.worker = parent.inference = worker
        parent.inference_main_loop = self._main_loop
        parent.inference_broker = services.broker
        parent.inference_redeliveries = Redeliveries(
            services.taken,
            worker.store_calls,
            self._main_loop,
            holder=worker.holder,
            max_deaths=services.settings.worker.max_attempts,
        )
        parent.inference_dead_letters = MessageDeadLetters(services.store, services.objects, worker.holder)
        freeze_heap()

    def stop(self, _parent: Any) -> None:
        """Drain and acknowledge, after the consumer has stopped. Unacknowledged messages go back when the channel closes."""
        self._main_loop.end()
        if self._worker is not None:
            self._worker.stop()
            self._main_loop.run_pending()
            self._main_loop.publish_events()
            if self._worker.tracer is not None:
                self._worker.tracer.close()
            self._worker = None

    def terminate(self, parent: Any) -> None:
        self.stop(parent)
