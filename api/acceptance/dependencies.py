"""Parts that accept both single requests and batches."""

from __future__ import annotations

from dataclasses import dataclass

from api.acceptance.admission import Admission
from api.acceptance.uploads import Uploads
from api.acceptance.webhooks import WebhookPolicy
from inference.broker import Broker
from inference.lifecycle.replies import ReplyRouter
from inference.lifecycle.task_ids import TaskIds
from inference.rollout.runtime_config import RuntimeConfig
from inference.settings import Settings
from inference.storage.protocol import ObjectStore
from inference.task_store import SubmissionStore


@dataclass(frozen=True)
class AcceptanceParts:
    """Parts shared by `Submissions` and `BatchSubmissions`, which count against the same limits."""

    store: SubmissionStore
    broker: Broker
    objects: ObjectStore
    uploads: Uploads
    ids: TaskIds
    configuration: RuntimeConfig
    replies: ReplyRouter
    admission: Admission
    webhooks: WebhookPolicy
    settings: Settings
