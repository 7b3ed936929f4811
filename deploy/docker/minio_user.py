"""Make a user of MinIO with the rights of a policy alone; if the user exists, its secret key and policy are set anew.

    python minio_user.py POLICY

POLICY is a JSON file; in MinIO it has the name of the user, which is the access key. The variables are MINIO_ENDPOINT,
MINIO_ROOT_USER, MINIO_ROOT_PASSWORD_FILE, MINIO_ACCESS_KEY and MINIO_SECRET_KEY_FILE.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import urllib3
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin


def make_user(endpoint: str, root: StaticProvider, policy: dict[str, Any], access_key: str, secret_key: str) -> None:
    """Make or update the user.

    Args:
        endpoint: http:// or https:// and HOST:PORT.
        root: the keys of MinIO's root user.

    Raises:
        MinioAdminException: MinIO refuses a call.
        urllib3.exceptions.HTTPError: it does not answer.
    """
    scheme, _, address = endpoint.rpartition("://")
    admin = MinioAdmin(endpoint=address, credentials=root, secure=scheme == "https")
    admin.policy_add(access_key, policy=policy)
    admin.user_add(access_key, secret_key)
    admin.policy_set(access_key, user=access_key)  # in place of any other


def main() -> int:
    """Run with the variables of the environment; return the exit code."""
    root = StaticProvider(os.environ["MINIO_ROOT_USER"], _secret("MINIO_ROOT_PASSWORD_FILE"))
    policy = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    access_key = os.environ["MINIO_ACCESS_KEY"]
    try:
        make_user(os.environ["MINIO_ENDPOINT"], root, policy, access_key, _secret("MINIO_SECRET_KEY_FILE"))
    except (MinioAdminException, urllib3.exceptions.HTTPError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{access_key} has the rights of {sys.argv[1]}\n")
    return 0


def _secret(variable: str) -> str:
    return Path(os.environ[variable]).read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    sys.exit(main())
