"""Settings of the S3 store, and the client that they make."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError
from support.settings_files import complaint, load

from inference.errors import ConfigurationError
from inference.settings import S3Settings
from inference.storage.s3_client import connect, credentials_of

KEYS = {"access_key": "a", "secret_key": "b"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"credentials": "role", **KEYS}, "s3: credentials: role excludes access_key and secret_key"),
        ({"role_endpoint": "https://sts.example.org"}, "s3: role_endpoint needs credentials: role"),
        ({"credentials": "role", "role_endpoint": "sts.example.org"}, "s3.role_endpoint: must be http://HOST:PORT or"),
        ({"credentials": "role", "role_endpoint": "https://me:S3krit@h"}, "s3.role_endpoint: must be http://HOST:PORT or"),
        ({"addressing": "virtual", "endpoint": "10.0.0.1:9000"}, "s3: addressing: virtual needs an endpoint with a name"),
        ({"addressing": "virtual", "endpoint": "http://[::1]:9000"}, "s3: addressing: virtual needs an endpoint with a name"),
        ({"addressing": "virtual", "endpoint": "h:1", "public_endpoint": "127.0.0.1"}, "s3: addressing: virtual needs"),
        ({"addressing": "host"}, "s3.addressing: "),
        ({"session_token": "a b"}, "s3.session_token: must be ASCII"),
    ],
)
def test_what_cannot_work_is_refused(section: dict[str, Any], said: str) -> None:
    text = complaint({"s3": section})
    assert text.startswith(said)
    assert "S3krit" not in text


def test_a_pair_of_keys_is_needed_by_the_store_that_is_used() -> None:
    uploads = {"store": "s3"}
    load({"uploads": uploads, "s3": {"credentials": "role"}})
    load({"uploads": uploads, "s3": {"session_token": "t", **KEYS}})
    assert "s3.secret_key is empty" in complaint({"uploads": uploads, "s3": {"session_token": "t", "access_key": "a"}})
    assert "s3.access_key is empty" in complaint({"uploads": uploads, "s3": {"session_token": "t"}})


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ({"endpoint": "h:9000"}, "http://h:9000/bucket/k"),
        ({"endpoint": "https://h:443", "addressing": "virtual"}, "https://bucket.h/k"),
        ({"endpoint": "https://s3.eu-west-1.amazonaws.com"}, "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        ({"endpoint": "https://s3.amazonaws.com", "region": "eu-west-1"}, "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        ({"endpoint": "https://s3.amazonaws.com"}, "https://bucket.s3.us-east-1.amazonaws.com/k"),
        ({"endpoint": "https://s3.amazonaws.com", "addressing": "path"}, "https://s3.us-east-1.amazonaws.com/bucket/k"),
        ({"endpoint": "https://id.r2.cloudflarestorage.com", "region": "auto"}, "https://id.r2.cloudflarestorage.com/bucket/k"),
    ],
)
def test_the_address_and_region_of_a_bucket(section: dict[str, Any], url: str) -> None:
    settings = S3Settings.model_validate(section | KEYS)
    signed = connect(settings, credentials_of(settings), 1).presigned_get_object("bucket", "k")
    assert signed.partition("?")[0] == url
    named = settings.region or ("eu-west-1" if "eu-west-1" in url else "us-east-1")
    assert f"%2F{named}%2Fs3%2Faws4_request" in urlsplit(signed).query


def test_a_region_that_the_endpoint_needs_is_a_setting() -> None:
    settings = S3Settings(endpoint="https://s3.amazonaws.com.cn")
    with pytest.raises(ConfigurationError, match=r"s3\.endpoint: region missing"):
        connect(settings, None, 1)


def test_without_keys_requests_are_anonymous() -> None:
    assert credentials_of(S3Settings()) is None


def test_secrets_are_not_shown() -> None:
    assert "S3krit" not in repr(S3Settings.model_validate({"session_token": "S3krit", **KEYS}))
    with pytest.raises(ValidationError) as caught:
        S3Settings.model_validate({"credentials": "role", "session_token": "S3krit"})
    assert "S3krit" not in str(caught.value)
