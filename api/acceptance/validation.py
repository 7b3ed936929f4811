"""Checks of a request before anything of it is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from api.acceptance.webhooks import WebhookPolicy
from api.forms.options import read_deadline_s
from api.forms.predict import ImageForm
from api.forms.preference import Preference
from inference.access import Caller, Limits
from inference.broker import USUAL_PRIORITY, Broker
from inference.domain import ImageHeader, ModelRef
from inference.errors import InvalidMetadata
from inference.imaging import ImageLimits, inspect
from inference.models.spec import ModelSpec
from inference.rollout.runtime_config import ConfigSnapshot
from inference.settings import Settings
from inference.webhook import Webhook


@dataclass
class ValidatedRequest:
    """The request for one image, with all defaults filled in."""

    spec: ModelSpec
    #: the version of the model that runs now
    model: ModelRef
    #: seconds from acceptance to the task's deadline
    deadline_s: float
    #: the sinks of the result
    sinks: tuple[str, ...]
    webhook: Webhook | None


class RequestValidator:
    """Checks requests against the settings, the broker and the models."""

    def __init__(self, broker: Broker, settings: Settings, webhooks: WebhookPolicy) -> None:
        self._broker = broker
        self._webhooks = webhooks
        self._settings = settings
        self._limits = ImageLimits(settings.limits.max_pixels)

    def check(self, form: ImageForm, preference: Preference, snapshot: ConfigSnapshot, caller: Caller) -> ValidatedRequest:
        """Check everything except the image itself: see `inspect`. Raises InferenceError: the request is not valid.

        Args:
            caller: its limits hold, and the webhook of its owner is the default.
        """
        spec = snapshot.model(form.model)
        deadline_s = self._deadline_s(form, preference, caller.limits)
        sinks = snapshot.sinks_for(form.sinks, field="metadata.sinks")
        self._check_priority(form, caller.limits)
        webhook = self._webhooks.webhook_for(form.webhook, caller.owner)
        return ValidatedRequest(spec, snapshot.reference(spec), deadline_s, sinks, webhook)

    def inspect(self, form: ImageForm, spec: ModelSpec) -> ImageHeader:
        """Check the image for this model. Raises InferenceError: the model cannot take it.

        This takes a sixth of a refusal's time, so a single image is inspected only after its admission.
        """
        return inspect(
            form.image,
            shape=form.shape,
            dtype=form.dtype,
            content_type=form.content_type,
            spec=spec.image_input,
            limits=self._limits,
        )

    def _check_priority(self, form: ImageForm, limits: Limits) -> None:
        if form.priority != USUAL_PRIORITY and not self._broker.has_priorities:
            raise InvalidMetadata(
                "this service's broker has no priorities: quorum queues of RabbitMQ before 4.3 keep the order of acceptance",
                field="metadata.priority",
                expected=f"{USUAL_PRIORITY}, or a service with RabbitMQ 4.3 or broker.queue_type: classic",
            )
        if limits.max_priority is not None and form.priority > limits.max_priority:
            raise InvalidMetadata(
                f"the priority is {form.priority}, more than this key allows",
                field="metadata.priority",
                expected=f"at most {limits.max_priority}",
            )

    def longest_deadline_s(self, wanted: Iterable[Any], preference: Preference) -> float:
        """The longest of these deadlines, as clients sent them; a value that is not valid is ignored."""
        longest_s = 0.0
        for value in wanted:
            with contextlib.suppress(InvalidMetadata):
                longest_s = max(longest_s, read_deadline_s(value) or self._default_s(preference))
        return longest_s or self._default_s(preference)

    def _default_s(self, preference: Preference) -> float:
        deadlines = self._settings.deadlines
        return deadlines.sync_s if preference.wait_s is None else deadlines.async_s

    def _deadline_s(self, form: ImageForm, preference: Preference, limits: Limits) -> float:
        deadlines = self._settings.deadlines
        wanted_s = form.deadline_s or self._default_s(preference)
        if wanted_s > deadlines.max_s:
            raise InvalidMetadata(
                f"deadline_s is {wanted_s:g}, more than this service allows",
                field="metadata.deadline_s",
                expected=f"at most {deadlines.max_s:g}",
            )
        if limits.max_deadline_s is None or wanted_s <= limits.max_deadline_s:
            return wanted_s
        if form.deadline_s is None:  # the default, which the client did not choose
            return limits.max_deadline_s
        raise InvalidMetadata(
            f"deadline_s is {wanted_s:g}, more than this key allows",
            field="metadata.deadline_s",
            expected=f"at most {limits.max_deadline_s:g}",
        )
