"""Celery's settings, derived from the one configuration (`INFERENCE_CONFIG`, else configurations/local.yaml)."""

import sys
from typing import Any

from inference.broker.amqp import predict_queue
from inference.errors import ConfigurationError
from inference.models.registry import default_name, described_models
from inference.runtime.redis import kombu_sentinel_options, kombu_tls, kombu_url
from inference.settings import config_path, load_settings

try:
    settings = load_settings(config_path())
    _models = described_models(settings)
    broker_url = kombu_url(settings)
    broker_use_ssl = kombu_tls(settings) or False
except ConfigurationError as error:
    sys.stderr.write(f"error: {error.detail}\n")
    sys.exit(2)

broker_connection_retry_on_startup = True
# Redis refuses calls temporarily during a change of roles or while replicas are missing. On RabbitMQ such an error is a bug here.
broker_channel_error_retry = not settings.broker.is_amqp
broker_transport_options: dict[str, Any] = (
    {}
    if settings.broker.is_amqp
    else {
        # Only the message of a worker that died returns this way, and the sweeper is faster: see inference/relay/sweeper.py.
        "visibility_timeout": 3600,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        **kombu_sentinel_options(settings),
        **({"global_keyprefix": settings.broker_key_prefix} if settings.broker_key_prefix else {}),
        **({"max_claim": settings.worker.max_batch_size} if settings.broker.transport == "claiming" else {}),
    }
)

task_queues = [predict_queue(model.queue, settings.broker) for model in _models.values()]
task_default_queue = _models[default_name(settings, _models)].queue

# One consumer; the threads of the pipeline and the predictor process run concurrently.
worker_pool = "solo"
worker_consumer = "tasks.consumer.consumer:InferenceConsumer"
worker_concurrency = 1
# Counted in items by tasks/transport/. RabbitMQ and kombu's own transport for Redis count messages, each with one or more items:
# the leases of all items are renewed together, and the arena's slots limit the number of decoded images.
worker_prefetch_multiplier = settings.worker.max_batch_size * settings.worker.prefetch_batches
worker_cancel_long_running_tasks_on_connection_loss = False
worker_enable_prefetch_count_reduction = False
worker_hijack_root_logger = False
worker_send_task_events = True

task_acks_late = True
task_ignore_result = True  # results live in the task record
task_serializer = "json"
accept_content = ["json"]
timezone = "UTC"
