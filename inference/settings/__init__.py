"""Configuration of the service.

In order of precedence, the highest last: a YAML or JSON file, `.env`, the environment (`INFERENCE_API__PORT=8080`), the command
line. Relative paths are relative to the working directory.
"""

from inference.settings.broker_section import EMBEDDED, BrokerSettings
from inference.settings.image_sections import ImageUrlSettings, UploadSettings
from inference.settings.loader import config_path, load_settings, read_translated
from inference.settings.log_section import LogSettings
from inference.settings.masked_text import masked_settings
from inference.settings.masking import shown_value
from inference.settings.s3_section import S3Settings
from inference.settings.schema import (
    ApiSettings,
    GpuSettings,
    ModelFileSettings,
    Settings,
    SinkName,
    WorkerSettings,
)
from inference.settings.sink_sections import KafkaSettings, MongodbSettings, OutboxSettings
from inference.settings.tracing_section import TracingSettings
from inference.settings.variables import CONFIG_VARIABLE
from inference.settings.webhook_section import WebhookSettings

__all__ = [
    "CONFIG_VARIABLE",
    "EMBEDDED",
    "ApiSettings",
    "BrokerSettings",
    "GpuSettings",
    "ImageUrlSettings",
    "KafkaSettings",
    "LogSettings",
    "ModelFileSettings",
    "MongodbSettings",
    "OutboxSettings",
    "S3Settings",
    "Settings",
    "SinkName",
    "TracingSettings",
    "UploadSettings",
    "WebhookSettings",
    "WorkerSettings",
    "config_path",
    "load_settings",
    "masked_settings",
    "read_translated",
    "shown_value",
]
