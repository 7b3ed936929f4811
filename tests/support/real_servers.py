"""The adapters' settings for the real servers, and a port where nobody listens."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from minio import Minio
from pydantic import SecretStr

from inference.settings import KafkaSettings, MongodbSettings, S3Settings

#: Why tests of the second S3 do not run; the end of the run says it once more.
NO_VERSITYGW = "docker-compose.yml has no VersityGW"
#: Nothing is ever there: the port of tcpmux.
NOBODY = "127.0.0.1:1"


def minio_settings(env: Mapping[str, str], **changes: object) -> S3Settings:
    keys = {"access_key": SecretStr(env["MINIO_ACCESS_KEY"]), "secret_key": SecretStr(env["MINIO_SECRET_KEY"])}
    return S3Settings.model_validate({"endpoint": env["MINIO_ENDPOINT"]} | keys | changes)


def versitygw_settings(env: Mapping[str, str], **changes: object) -> S3Settings:
    """The second S3, which has no lifecycle rules; containers have none."""
    endpoint = env.get("VERSITYGW_ENDPOINT") or pytest.skip(NO_VERSITYGW)
    return minio_settings(env, endpoint=endpoint, **changes)


def mongodb_settings(env: Mapping[str, str], **changes: object) -> MongodbSettings:
    return MongodbSettings.model_validate({"url": SecretStr(env["MONGODB_URL"])} | changes)


def kafka_settings(env: Mapping[str, str], **changes: object) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": env["KAFKA_BOOTSTRAP"]} | changes)


def minio_client(env: Mapping[str, str]) -> Minio:
    """Another way into MinIO, to see its objects."""
    return s3_client(minio_settings(env))


def s3_client(settings: S3Settings) -> Minio:
    """Another way into a store, to see its objects."""
    keys = {name: getattr(settings, name).get_secret_value() for name in ("access_key", "secret_key")}
    return Minio(settings.endpoint.removeprefix("http://"), secure=False, **keys)
