"""The user of docker-compose.yml at MinIO, and the rights that it lacks. The contract of object stores shows its rights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from minio.error import MinioAdminException, S3Error
from support.limited_users import limited_user, minio_admin
from support.real_servers import minio_client, minio_settings
from support.service import ROOT

from inference.errors import ObjectNotFound, ServiceUnavailable
from inference.storage.s3 import S3ObjectReader, S3ObjectStore

SCRIPT = "deploy/docker/minio_user.py"


def test_other_buckets_and_the_administration_are_closed(services_env: dict[str, str], own_name: str) -> None:
    others = f"{own_name}-others"
    root = minio_client(services_env)
    S3ObjectStore(minio_settings(services_env), others).put("uploads/a", b"of others")
    with limited_user(services_env, own_name, own_name) as settings:
        limited = minio_client(
            services_env | {"MINIO_ACCESS_KEY": own_name, "MINIO_SECRET_KEY": settings.secret_key.get_secret_value()}
        )
        calls: list[Callable[[], object]] = [
            lambda: list(limited.list_objects(others)),
            lambda: limited.get_object(others, "uploads/a"),
            lambda: limited.stat_object(others, "uploads/a"),
            lambda: limited.remove_object(others, "uploads/a"),
            lambda: limited.make_bucket(f"{own_name}-more"),
            lambda: limited.remove_bucket(own_name),
            lambda: limited.set_bucket_policy(own_name, "{}"),
            lambda: limited.delete_bucket_lifecycle(others),
        ]
        for call in calls:
            with pytest.raises(S3Error) as refused:
                call()
            assert refused.value.code == "AccessDenied"
        store = S3ObjectStore(settings, own_name)
        store.put("uploads/a", b"its own")
        assert [bucket.name for bucket in limited.list_buckets()] == [own_name]
        for read in (store.get, store.size, lambda key: store.copy(key, "uploads/b")):
            with pytest.raises(ObjectNotFound):  # one image's failure, not the store's
                read(f"s3://{others}/uploads/a")
        with pytest.raises(ServiceUnavailable, match="AccessDenied"):
            S3ObjectReader(settings).etag(others, "uploads/a")
        with pytest.raises(ServiceUnavailable, match="AccessDenied"):
            S3ObjectStore(settings, others).put_url("uploads/b", lifetime_s=60)
        admin = minio_admin(settings)
        for admin_call in (admin.user_list, admin.policy_list, admin.info, lambda: admin.user_add("another", "a-secret-key")):
            with pytest.raises(MinioAdminException, match="AccessDenied"):
                admin_call()
    assert [entry.object_name for entry in root.list_objects(others, recursive=True)] == ["uploads/a"]


def test_a_bucket_that_may_not_be_created_is_named_as_what_is_missing(services_env: dict[str, str], own_name: str) -> None:
    with limited_user(services_env, own_name, own_name, without="s3:CreateBucket") as settings:
        store = S3ObjectStore(settings, own_name)
        for call in (lambda: store.put("uploads/a", b"pixels"), lambda: store.put_url("incoming/a", lifetime_s=60)):
            with pytest.raises(ServiceUnavailable, match=rf"AccessDenied.*bucket_name: {own_name}") as refused:
                call()
            assert refused.value.public == "the bucket of the images does not exist, and cannot be created"
            assert "does not answer" not in refused.value.detail


def test_the_script_makes_bucket_and_user_and_may_run_again(services_env: dict[str, str], own_name: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(
        (ROOT / "deploy/docker/minio-policy.json").read_text("utf-8").replace(":::inference", f":::{own_name}"), encoding="utf-8"
    )
    (root_file := tmp_path / "root").write_text(services_env["MINIO_SECRET_KEY"] + "\n", encoding="utf-8")
    user_file = tmp_path / "user"

    def run(root: Path) -> subprocess.CompletedProcess[str]:
        variables = {
            "MINIO_ENDPOINT": services_env["MINIO_ENDPOINT"],
            "MINIO_ROOT_USER": services_env["MINIO_ACCESS_KEY"],
            "MINIO_ROOT_PASSWORD_FILE": str(root),
            "MINIO_ACCESS_KEY": own_name,
            "MINIO_SECRET_KEY_FILE": str(user_file),
        }
        command = [sys.executable, SCRIPT, str(policy)]
        return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)

    for secret in ("the-first-secret", "another-secret"):
        user_file.write_text(secret + "\n", encoding="utf-8")
        done = run(root_file)
        assert (done.returncode, done.stdout) == (0, f"{own_name} has the rights of {policy}\n"), done.stderr
        settings = minio_settings(services_env, access_key=own_name, secret_key=secret)
        S3ObjectStore(settings, own_name).put("uploads/a", b"bytes")
    with pytest.raises(ServiceUnavailable, match="signature"):
        S3ObjectStore(minio_settings(services_env, access_key=own_name, secret_key="the-first-secret"), own_name).get("uploads/a")

    root_file.write_text("not-the-password", encoding="utf-8")
    done = run(root_file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "not-the-password" not in done.stderr
    admin = minio_admin(minio_settings(services_env))
    admin.user_remove(own_name)
    admin.policy_remove(own_name)
