"""Users of the real servers with the rights that docs/production.md names, and no others."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from support.real_servers import minio_settings
from support.service import ROOT

from deploy.docker.minio_user import make_user
from inference.settings import S3Settings

REDIS_USER = "inference"
POLICY_FILE = ROOT / "deploy/docker/minio-policy.json"


def redis_rules(db: int = 0) -> list[str]:
    """The rights of the service's user of Redis in docker-compose.yml for a database, as ACL SETUSER takes them."""
    script = (ROOT / "deploy/docker/make-secrets.sh").read_text(encoding="utf-8")
    (rules,) = re.findall(rf"^user {REDIS_USER} on >\$value (.+)$", script, re.MULTILINE)
    return str(rules).replace("&/0.", f"&/{db}.").split()


def policy_for(bucket: str, *, without: str = "") -> dict[str, Any]:
    """The policy of docker-compose.yml for another bucket, `without` one of its rights."""
    text = POLICY_FILE.read_text(encoding="utf-8")
    policy: dict[str, Any] = json.loads(text.replace("arn:aws:s3:::inference", f"arn:aws:s3:::{bucket}"))
    for statement in policy["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if action != without]
    return policy


def minio_admin(settings: S3Settings) -> MinioAdmin:
    keys = StaticProvider(settings.access_key.get_secret_value(), settings.secret_key.get_secret_value())
    return MinioAdmin(endpoint=settings.endpoint.removeprefix("http://"), credentials=keys, secure=False)


@contextmanager
def limited_user(env: Mapping[str, str], name: str, bucket: str, *, without: str = "") -> Iterator[S3Settings]:
    """A user of this name for this bucket alone, or for buckets that fit a pattern; `without` one of the rights."""
    root = StaticProvider(env["MINIO_ACCESS_KEY"], env["MINIO_SECRET_KEY"])
    secret = secrets.token_hex(20)
    make_user(env["MINIO_ENDPOINT"], root, policy_for(bucket, without=without), name, secret)
    try:
        yield minio_settings(env, access_key=name, secret_key=secret)
    finally:
        admin = minio_admin(minio_settings(env))
        admin.user_remove(name)
        admin.policy_remove(name)
