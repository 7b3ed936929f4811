"""Components of the application: built once, kept in `app.extensions`, and read by the routes."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app

from api.acceptance.admission import Admission
from api.acceptance.batch_submission import BatchSubmissions
from api.acceptance.client_uploads import ClientUploads
from api.acceptance.dependencies import AcceptanceParts
from api.acceptance.named_images import NamedImages
from api.acceptance.operation_rate import OperationRate
from api.acceptance.owner_limits import OwnerLimits
from api.acceptance.pacing import OwnerPacing
from api.acceptance.submission import Submissions
from api.acceptance.task_counts import begin_counts
from api.acceptance.uploads import Uploads
from api.acceptance.webhooks import WebhookPolicy
from api.commands import Commands
from api.events.hub import EventHub
from api.readiness import Readiness
from api.server.shutdown_flag import SharedFlag
from api.views.problems import public_text
from inference.container import Services
from inference.lifecycle.replies import ReplyRouter
from inference.lifecycle.task_changes import TaskChanges
from inference.lifecycle.task_ids import TaskIds
from inference.lifecycle.task_images import TaskImages
from inference.runtime.ttl_cache import TtlCache
from inference.status.collect import Status, status_of
from inference.status.service_metrics import ServiceMetrics

_EXTENSION = "inference"
_STATUS_AGE_S = 1.0
#: Part of the budget for bodies that the requests of an owner may hold while they wait for its pace: one of so many.
_PAUSED_SHARE = 8


@dataclass(frozen=True)
class Components:
    """The objects that the routes use."""

    services: Services
    #: set before the service ends
    stopping: SharedFlag
    replies: ReplyRouter
    images: TaskImages
    submissions: Submissions
    batch_submissions: BatchSubmissions
    client_uploads: ClientUploads
    operation_rate: OperationRate
    commands: Commands
    events: EventHub
    #: reads the state for operators, at most once a second: pages that are open ask often
    status: TtlCache[Status]
    readiness: Readiness
    service_metrics: ServiceMetrics


def components() -> Components:
    """The components of the application that handles the current request."""
    return components_of(current_app)


def components_of(app: Flask) -> Components:
    """The components of `app`."""
    found: Components = app.extensions[_EXTENSION]
    return found


def install_components(app: Flask, built: Components) -> None:
    """Store the components for the routes of `app`."""
    app.extensions[_EXTENSION] = built


def build_components(services: Services, stopping: SharedFlag, max_event_streams: int) -> Components:
    """Build the components. Raises ConfigurationError: a model's description is not valid."""
    begin_counts(services.descriptions)
    changes = TaskChanges(services.redis, services.settings.task_store.key_prefix)
    parts = _acceptance_parts(services)
    return Components(
        services=services,
        stopping=stopping,
        replies=parts.replies,
        images=TaskImages(services.store, services.objects),
        submissions=Submissions(parts),
        batch_submissions=BatchSubmissions(parts),
        client_uploads=ClientUploads(
            services.objects, services.store, services.settings.uploads, check_free_space=services.free_space.check
        ),
        operation_rate=OperationRate(),
        commands=Commands(
            services.runtime_config,
            services.desired,
            services.presence,
            services.model_files,
            load_timeout_s=services.settings.worker.load_timeout_s,
        ),
        events=EventHub(services.store, changes, stopping, max_event_streams),
        status=TtlCache(lambda: status_of(services, describe=public_text), max_age_s=_STATUS_AGE_S),
        readiness=Readiness(services, stopping),
        service_metrics=ServiceMetrics(services),
    )


def _acceptance_parts(services: Services) -> AcceptanceParts:
    settings = services.settings
    uploads = Uploads(services.objects, settings.uploads)
    admission = Admission(
        services.store,
        services.outbox_stats,
        settings.outbox,
        workers=services.presence.workers,
        worker_settings=settings.worker,
        has_turns=services.broker.has_turns,
        check_free_space=services.free_space.check,
    )
    return AcceptanceParts(
        store=services.store,
        broker=services.broker,
        uploads=uploads,
        named_images=NamedImages(services.objects, uploads, settings),
        ids=TaskIds(services.store, max_age_s=settings.uploads.orphan_after_s / 2),
        configuration=services.runtime_config,
        replies=ReplyRouter(services.redis, services.store, settings.task_store.key_prefix),
        admission=admission,
        webhooks=WebhookPolicy(
            settings.webhooks, services.owner_webhooks, lambda: services.webhook_guard, services.store.count_webhooks
        ),
        owner_limits=OwnerLimits(),
        pacing=OwnerPacing(
            admission.load,
            max_held_tasks=settings.worker.max_held_tasks,
            max_image_bytes=settings.api.body_budget_bytes // _PAUSED_SHARE,
        ),
        settings=settings,
        tracer=services.tracer,
    )
