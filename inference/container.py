"""Construction of the adapters from the settings; no other module does it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import redis

from inference.broker import Broker
from inference.broker.redis import RedisBroker
from inference.broker.rejected import RejectedMessages
from inference.broker.unacknowledged import TakenMessages
from inference.keys.key_ring import KeyRing, key_ring
from inference.keys.key_store import KeyStore
from inference.keys.owner_webhooks import OwnerWebhooks
from inference.lifecycle.erasures import Erasures
from inference.models.files import ModelFiles
from inference.models.registry import ModelRegistry, described_models
from inference.models.spec import ModelDescription
from inference.rollout.desired_state import RolloutStore
from inference.rollout.runtime_config import RuntimeConfig
from inference.rollout.worker_registry import WorkerPresence
from inference.runtime.free_space import FreeSpace, free_space_of
from inference.runtime.redis import broker_url, connect, task_store_url
from inference.runtime.url_guard import UrlGuard
from inference.settings import Settings
from inference.sinks.webhook import webhook_guard
from inference.storage import open_object_store
from inference.storage.protocol import ObjectStore
from inference.task_store import TaskStore
from inference.task_store.outbox import OutboxStats, RelayInfo, outbox_stats, relays_of
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer


class Services:
    """Stores, broker and models of one process; each is created on its first use.

    Args:
        role: the process, as spans name it: api, worker or relay.
    """

    def __init__(self, settings: Settings, role: str = "server") -> None:
        self.settings = settings
        self._role = role

    @cached_property
    def descriptions(self) -> dict[str, ModelDescription]:
        """The configured models by name; their files are not read, since these may be missing or their bucket down."""
        return described_models(self.settings)

    @cached_property
    def models(self) -> ModelRegistry:
        return ModelRegistry.load(self.settings)

    @cached_property
    def model_files(self) -> ModelFiles:
        """Access to the files of models that are loaded while the service runs."""
        return ModelFiles(self.settings, self.descriptions.values())

    @cached_property
    def redis(self) -> redis.Redis:
        """The client of the task store's Redis server."""
        return connect(task_store_url(self.settings))

    @cached_property
    def store(self) -> TaskStore:
        options = self.settings.task_store
        policy = StorePolicy(
            options.key_prefix,
            options.lease_s,
            options.result_ttl_s,
            options.idempotency_ttl_s,
            options.index_max,
            has_turns=self.settings.broker.has_turns,
        )
        return RedisTaskStore(self.redis, policy)

    @cached_property
    def broker(self) -> Broker:
        if self.settings.broker.is_amqp:
            from inference.broker.amqp import AmqpBroker  # noqa: PLC0415 an adapter is imported only if the settings choose it

            return AmqpBroker(self.settings.broker)
        shares_store = broker_url(self.settings) == task_store_url(self.settings)
        client = self.redis if shares_store else connect(broker_url(self.settings))
        return RedisBroker(
            client,
            shares_store=shares_store,
            has_turns=self.settings.broker.has_turns,
            key_prefix=self.settings.broker_key_prefix,
        )

    @cached_property
    def taken(self) -> TakenMessages:
        """Notes on messages that were delivered again."""
        return TakenMessages(self.redis, self.settings.task_store.key_prefix)

    @cached_property
    def rejected(self) -> RejectedMessages:
        """Queue messages that no worker could read."""
        return RejectedMessages(self.redis, self.settings.task_store.key_prefix)

    @cached_property
    def erasures(self) -> Erasures:
        return Erasures(self.store, self.objects, self.broker, self.rejected)

    @cached_property
    def objects(self) -> ObjectStore:
        return open_object_store(self.settings)

    @cached_property
    def free_space(self) -> FreeSpace:
        return free_space_of(self.settings, self.redis)

    @cached_property
    def webhook_guard(self) -> UrlGuard:
        """Requests to the receivers of webhooks. Raises ConfigurationError."""
        return webhook_guard(self.settings.webhooks)

    @property
    def may_send_webhooks(self) -> bool:
        """Whether events may be sent: the file with keys can give an owner a secret at any time."""
        return self.settings.webhooks.is_on or self.settings.security.keys_file is not None

    @cached_property
    def owner_webhooks(self) -> OwnerWebhooks:
        has_owners = self.settings.security.keys_file is not None
        return OwnerWebhooks(self.settings.webhooks, self.keys.owner if has_owners else None)

    @cached_property
    def desired(self) -> RolloutStore:
        return RolloutStore(self.redis, self.settings.task_store.key_prefix)

    @cached_property
    def runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self.settings, self.models, self.desired)

    def outbox_stats(self, sink: str) -> OutboxStats:
        return outbox_stats(self.redis, self.settings.task_store.key_prefix, sink)

    def relays(self, sink: str) -> list[RelayInfo]:
        return relays_of(self.redis, self.settings.task_store.key_prefix, sink)

    @cached_property
    def key_store(self) -> KeyStore:
        return KeyStore(self.redis, self.settings.task_store.key_prefix)

    @cached_property
    def keys(self) -> KeyRing:
        """Keys of the API's callers."""
        return key_ring(self.settings, self.key_store)

    @cached_property
    def tracer(self) -> Tracer | None:
        """The tracer of this process; None while traces are off."""
        if not self.settings.tracing.is_on:
            return None
        from inference.tracing.tracer import Tracer  # noqa: PLC0415 its packages are an extra

        return Tracer(self.settings, self._role)

    @cached_property
    def presence(self) -> WorkerPresence:
        return WorkerPresence(self.redis, self.settings.task_store.key_prefix)
