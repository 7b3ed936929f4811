"""Parts that accept both single requests and batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.acceptance.admission import Admission
from api.acceptance.named_images import NamedImages
from api.acceptance.owner_limits import OwnerLimits
from api.acceptance.pacing import OwnerPacing
from api.acceptance.uploads import Uploads
from api.acceptance.webhooks import WebhookPolicy
from inference.broker import Broker
from inference.lifecycle.replies import ReplyRouter
from inference.lifecycle.task_ids import TaskIds
from inference.rollout.runtime_config import RuntimeConfig
from inference.settings import Settings
from inference.task_store import SubmissionStore

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer


@dataclass(frozen=True)
class AcceptanceParts:
    """Parts shared by `Submissions` and `BatchSubmissions`, which count against the same limits."""

    store: SubmissionStore
    broker: Broker
    uploads: Uploads
    named_images: NamedImages
    ids: TaskIds
    configuration: RuntimeConfig
    replies: ReplyRouter
    admission: Admission
    webhooks: WebhookPolicy
    owner_limits: OwnerLimits
    pacing: OwnerPacing
    settings: Settings
    #: None while traces are off
    tracer: Tracer | None
