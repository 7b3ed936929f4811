"""Relay process: one thread for each sink, one for webhooks, one for the sweeper, and one for housekeeping."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from functools import partial
from types import FrameType

from inference.container import Services
from inference.lifecycle.dead_letters import DeadLetters
from inference.lifecycle.erasures import erase_objects_left
from inference.relay.delivery import Relay, RelayPolicy
from inference.relay.expired_uploads import ExpiredUploads
from inference.relay.health import RelayHealth, Runner
from inference.relay.late_images import LateImages
from inference.relay.orphans import Orphans
from inference.relay.sweeper import Sweeper, SweepPolicy
from inference.relay.upload_maintenance import Housekeeping, Job
from inference.relay.webhooks import WebhookRelay, give_up_old_webhooks
from inference.runtime.redis import connect, task_store_url
from inference.settings import Settings
from inference.sinks import open_sink
from inference.sinks.webhook import WebhookSender
from inference.status.monitoring import start_monitoring
from inference.task_store.outbox import Outbox

logger = logging.getLogger(__name__)

#: Longest interval of the retention of uploads in a folder and of dead letters, seconds.
_RETENTION_INTERVAL_S = 3600.0
#: Pause before the next call if one has not removed all that is too old.
_RETENTION_PAUSE_S = 1.0
#: The interval as a share of the time for which data is kept, if that is short.
_INTERVAL_SHARE = 0.1


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. A thread that fails ends the process, so that its supervisor restarts it.

    Raises:
        ConfigurationError: the port of the monitoring is not available.
    """
    stopping = threading.Event()
    failed = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)

    def guarded(name: str, runner: Runner) -> None:
        try:
            with runner.watch.watched(name, runner.turn_limit_s):
                runner.run(stopping)
        except Exception:
            logger.critical("%s failed; the relay ends", threading.current_thread().name, exc_info=True)
            failed.set()
            stopping.set()

    services = Services(settings, role="relay")
    runners = _runners(settings, services)
    start_monitoring(services, RelayHealth(runners, stopping), "relay")
    threads = [threading.Thread(target=guarded, args=one, name=one[0]) for one in runners.items()]
    for thread in threads:
        thread.start()
    logger.info("relaying to %s", ", ".join(settings.possible_sinks) or "no sink")
    for thread in threads:
        thread.join()
    if services.tracer is not None:
        services.tracer.close()
    if failed.is_set():
        raise SystemExit(1)


def _runners(settings: Settings, services: Services) -> dict[str, Runner]:
    name = f"{socket.gethostname()}:{os.getpid()}"
    sweeper = Sweeper(
        services.store,
        services.broker,
        services.objects,
        holder=f"sweeper@{name}",
        queues=[model.queue for model in services.descriptions.values()],
        policy=SweepPolicy(
            max_attempts=settings.worker.max_attempts, requeue_lost_after_s=settings.task_store.requeue_lost_after_s
        ),
        tracer=services.tracer,
    )
    runners: dict[str, Runner] = {"sweeper": sweeper}
    for sink in settings.possible_sinks:
        runners[f"relay-{sink}"] = _relay(settings, services, sink, name)
    webhooks = settings.webhooks
    if services.may_send_webhooks:
        sender = WebhookSender(services.webhook_guard, lambda owner: services.owner_webhooks.of(owner).secrets)
        runners["webhooks"] = WebhookRelay(services.store, sender, webhooks, tracer=services.tracer)
    runners["housekeeping"] = _housekeeping(settings, services)
    return runners


def _housekeeping(settings: Settings, services: Services) -> Housekeeping:
    def retention() -> float:
        has_more = services.objects.apply_retention(settings.uploads.retention_hours)
        discard_surplus_dead_letters(services)
        discard_old_dead_letters(services)
        if has_more:
            return _RETENTION_PAUSE_S
        kept_hours = (settings.uploads.retention_hours, settings.task_store.dead_letter_retention_hours)
        return min(_RETENTION_INTERVAL_S, *(hours * 3600 * _INTERVAL_SHARE for hours in kept_hours if hours is not None))

    jobs: dict[str, Job] = {
        "retention": retention,
        "late images": LateImages(services.store, services.objects).store,
        "expired uploads": ExpiredUploads(services.objects).remove_expired,
        "objects of erased tasks": partial(erase_objects_left, services.store, services.objects),
        "old webhooks": partial(give_up_old_webhooks, services.store, settings.webhooks.give_up_after_s),
    }
    if settings.task_store.allow_eviction:  # then the record of an accepted task may be missing
        logger.warning("uploads without a task are not deleted, since Redis may evict records (task_store.allow_eviction)")
    else:
        orphans = Orphans(services.store, services.objects, after_s=settings.uploads.orphan_after_s)
        jobs["uploads without a task"] = orphans.check
    return Housekeeping(jobs)


def discard_surplus_dead_letters(services: Services) -> None:
    """Discard the oldest dead letters if there are more than `task_store.max_dead_letters`. Raises ServiceUnavailable."""
    kept = services.settings.task_store.max_dead_letters
    surplus = DeadLetters(services.store, services.objects, services.broker).discard_oldest(kept)
    if surplus:
        logger.warning("there are more than %d dead letters: discarded the oldest %d", kept, surplus)


def discard_old_dead_letters(services: Services) -> None:
    """Discard dead letters and messages older than `task_store.dead_letter_retention_hours`. Raises ServiceUnavailable."""
    hours = services.settings.task_store.dead_letter_retention_hours
    if hours is None:
        return
    dead_letters, count = DeadLetters(services.store, services.objects, services.broker), 0
    while discarded := dead_letters.discard_old(hours * 3600):
        count += discarded
    count += services.rejected.discard_old(hours * 3600)
    if count:
        logger.warning("discarded %d dead letters and rejected messages that are older than %g hours", count, hours)


def _relay(settings: Settings, services: Services, sink: str, name: str) -> Relay:
    options = settings.relay
    # A connection of its own, since it blocks while it waits for entries.
    outbox = Outbox(connect(task_store_url(settings)), settings.task_store.key_prefix, sink, name)
    policy = RelayPolicy(
        options.batch_size,
        options.backoff_s,
        options.max_backoff_s,
        options.reclaim_after_s,
        options.linger_ms / 1000,
        sink_timeout_s=max(settings.kafka.timeout_s, settings.mongodb.timeout_s),
    )
    return Relay(
        outbox,
        services.store,
        open_sink(sink, settings),
        pipeline_id=settings.pipeline_id,
        policy=policy,
        tracer=services.tracer,
    )
