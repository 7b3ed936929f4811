"""The one configuration.

A YAML or JSON file < `.env` and the environment (`INFERENCE_API__PORT=8080`) < the command line. Relative paths are relative
to the working directory.
"""

from inference.settings.reading import CONFIG_VARIABLE, config_path, load_settings
from inference.settings.schema import (
    EMBEDDED,
    BrokerSettings,
    GpuSettings,
    KafkaSettings,
    LogSettings,
    MinioSettings,
    ModelFileSettings,
    MongodbSettings,
    OutboxSettings,
    Settings,
)
from inference.settings.showing import effective

__all__ = [
    "CONFIG_VARIABLE",
    "EMBEDDED",
    "BrokerSettings",
    "GpuSettings",
    "KafkaSettings",
    "LogSettings",
    "MinioSettings",
    "ModelFileSettings",
    "MongodbSettings",
    "OutboxSettings",
    "Settings",
    "config_path",
    "effective",
    "load_settings",
]
