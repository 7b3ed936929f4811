"""Keys and owners as files and the record store describe them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from inference.access import OWNER_PATTERN, Caller, Limits, Role
from inference.keys.key_text import KEY_ID_PATTERN
from inference.settings.value_checks import Count, Seconds, Section
from inference.settings.webhook_section import WebhookEvents, WebhookSecret

_OWNER = re.compile(OWNER_PATTERN)


def _owner_name(text: str) -> str:
    if not _OWNER.fullmatch(text):
        raise ValueError("must be 1 to 64 letters, digits and _ . @ -, the first a letter or a digit")
    return text


OwnerName = Annotated[str, AfterValidator(_owner_name)]
KeyId = Annotated[str, Field(pattern=rf"^{KEY_ID_PATTERN}$")]


def _in_utc(time: datetime) -> datetime:
    """Return a time with its zone; without one it is in UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Time = Annotated[datetime, AfterValidator(_in_utc)]


@dataclass(frozen=True)
class Key:
    """A key without its secret."""

    caller: Caller
    #: SHA-256 of its text
    digest: bytes
    created_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def key_id(self) -> str:
        return self.caller.key_id


class LimitsEntry(Section):
    """Limits of a key; see `Limits`."""

    requests_per_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    burst: Count | None = None
    images_per_day: Count | None = None
    bytes_per_day: Count | None = None
    waiting_tasks: Count | None = None
    max_deadline_s: Seconds | None = None
    max_priority: Annotated[int, Field(ge=0, le=9)] | None = None

    def limits(self) -> Limits:
        return Limits(**self.model_dump())


class KeyEntry(Section):
    """A key in a file or in the record store, below its id."""

    owner: OwnerName
    role: Role
    #: SHA-256 of the key's text, hexadecimal
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    limits: LimitsEntry = LimitsEntry()
    created_at: Time | None = None
    expires_at: Time | None = None

    def key(self, key_id: str) -> Key:
        caller = Caller(self.owner, self.role, key_id, self.limits.limits())
        return Key(caller, bytes.fromhex(self.sha256), self.created_at, self.expires_at)

    @classmethod
    def of(cls, key: Key) -> Self:
        caller = key.caller
        return cls(
            owner=caller.owner,
            role=caller.role,
            sha256=key.digest.hex(),
            limits=LimitsEntry(**asdict(caller.limits)),
            created_at=key.created_at,
            expires_at=key.expires_at,
        )


class OwnerWebhook(Section):
    """Webhooks of an owner's tasks, in place of those of the service."""

    #: as `webhooks.secret`
    secret: WebhookSecret = SecretStr("")
    #: file with the secret; a relative path begins at the folder of the file with the keys
    secret_file: Path | None = None
    #: receiver of requests that name none
    url: str | None = None
    #: events of requests that name none
    events: WebhookEvents | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(self.secret.get_secret_value().split())

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.secret_file is not None and self.secrets:
            raise ValueError("secret and secret_file both give the secret; set only one of them")
        return self


class OwnerSettings(Section):
    """Settings of an owner."""

    webhook: OwnerWebhook = OwnerWebhook()


class KeyDocument(Section):
    """Content of a file with keys."""

    keys: dict[KeyId, KeyEntry] = Field(default_factory=dict)
    owners: dict[OwnerName, OwnerSettings] = Field(default_factory=dict)
