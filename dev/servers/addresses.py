"""Addresses of the servers for clients, as KEY=URL lines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Credentials:
    """Users and passwords, of letters that need no quoting in a URL; empty if the server needs none."""

    minio_access_key: str
    minio_secret_key: str
    amqp_user: str = "guest"  # RabbitMQ accepts this user only from this machine
    amqp_password: str = "guest"  # noqa: S105 RabbitMQ's own default
    redis_user: str = ""
    redis_password: str = ""
    mongo_user: str = ""
    mongo_password: str = ""


def addresses(endpoints: Mapping[str, str], credentials: Credentials) -> dict[str, str]:
    """Create the addresses by variable name; `endpoints` are HOST:PORT by server. Containers have no VersityGW."""
    redis_login = f"{credentials.redis_user}:{credentials.redis_password}@" if credentials.redis_password else ""
    mongo_login = f"{credentials.mongo_user}:{credentials.mongo_password}@" if credentials.mongo_password else ""
    found = {
        "REDIS_URL": f"redis://{redis_login}{endpoints['redis']}/0",
        "MINIO_ENDPOINT": f"http://{endpoints['minio']}",
        "MINIO_ACCESS_KEY": credentials.minio_access_key,
        "MINIO_SECRET_KEY": credentials.minio_secret_key,
        "KAFKA_BOOTSTRAP": endpoints["kafka"],
        "MONGODB_URL": f"mongodb://{mongo_login}{endpoints['mongo']}/",
        "AMQP_URL": f"amqp://{credentials.amqp_user}:{credentials.amqp_password}@{endpoints['rabbitmq']}//",
    }
    if "versitygw" in endpoints:  # it has the keys of MinIO
        found["VERSITYGW_ENDPOINT"] = f"http://{endpoints['versitygw']}"
    return found


def write_private(path: Path, text: str) -> None:
    """Write a file, readable only by its owner, atomically."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 a descriptor
        file.write(text)
    new.replace(path)
