"""Secrets from files that `NAME_FILE` variables name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from support.settings_files import complaint, load

from inference.settings.variables import secret_variables

VARIABLE = "INFERENCE_S3__SECRET_KEY"


@pytest.fixture
def secret(workplace: Path) -> Path:
    file = workplace / "secret"
    file.write_text("from a file\n", encoding="utf-8")
    return file


def test_these_settings_are_secrets() -> None:
    assert set(secret_variables()) == {
        "INFERENCE_BROKER__URL",
        "INFERENCE_TASK_STORE__URL",
        "INFERENCE_S3__ACCESS_KEY",
        "INFERENCE_S3__SESSION_TOKEN",
        VARIABLE,
        "INFERENCE_MONGODB__URL",
        "INFERENCE_KAFKA__PASSWORD",
        "INFERENCE_WEBHOOKS__SECRET",
        "INFERENCE_WEBHOOKS__URL",
        "INFERENCE_TRACING__HEADERS",
    }


@pytest.mark.parametrize("variable", sorted(secret_variables()))
def test_each_of_them_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, workplace: Path, variable: str) -> None:
    values = {
        "INFERENCE_BROKER__URL": "redis://:pw@host:1/0",
        "INFERENCE_TASK_STORE__URL": "redis://:pw@host:1/0",
        "INFERENCE_MONGODB__URL": "mongodb://me:pw@host/",
        "INFERENCE_WEBHOOKS__SECRET": f"whsec_{'c2l4' * 8}",
        "INFERENCE_WEBHOOKS__URL": "https://hooks.example/",
        "INFERENCE_TRACING__HEADERS": "authorization=a-secret",
    }
    value = values.get(variable, "a-secret")
    file = workplace / "secret"
    file.write_text(f"{value}\n", encoding="utf-8")
    monkeypatch.setenv(f"{variable}_FILE", str(file))
    section, _, key = variable.removeprefix("INFERENCE_").lower().partition("__")
    kafka = {"security_protocol": "SASL_SSL", "username": "me"} if section == "kafka" else {}
    webhooks = {"secret": values["INFERENCE_WEBHOOKS__SECRET"]} if key == "url" else {}

    found = getattr(getattr(load({"kafka": kafka, "webhooks": webhooks}), section), key)

    assert getattr(found, "get_secret_value", lambda: found)() == value


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_one_line_end_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch, secret: Path, end: str) -> None:
    secret.write_bytes(f"a b{end}".encode())
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret))
    assert load().s3.secret_key.get_secret_value() == "a b"


def test_names_may_be_in_small_letters_and_in_the_env_file(secret: Path) -> None:
    Path(".env").write_text(f"{VARIABLE.lower()}_file={secret}\n", encoding="utf-8")
    assert load().s3.secret_key.get_secret_value() == "from a file"


def test_the_environment_takes_precedence_over_the_env_file_and_the_configuration(
    monkeypatch: pytest.MonkeyPatch, secret: Path
) -> None:
    Path(".env").write_text(f"{VARIABLE}=in-env-file\n", encoding="utf-8")
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret))
    assert load({"s3": {"secret_key": "in-yaml"}}).s3.secret_key.get_secret_value() == "from a file"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret))
    assert load().s3.secret_key.get_secret_value() == "from a file"
    monkeypatch.setenv(VARIABLE, "given")
    monkeypatch.setenv(f"{VARIABLE}_FILE", "")
    assert load().s3.secret_key.get_secret_value() == "given"


class TestErrors:
    def test_both_are_too_many(self, monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
        monkeypatch.setenv(VARIABLE, "S3krit")
        monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret))
        assert complaint() == f"{VARIABLE} and {VARIABLE}_FILE are both set; remove one of them"

    @pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), (".", "Is a directory")])
    def test_a_file_that_cannot_be_read_is_named(self, monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
        monkeypatch.setenv(f"{VARIABLE}_FILE", name)
        assert complaint() == f"{VARIABLE}_FILE: cannot read the secret in {name}: {reason}"

    def test_an_empty_file_is_an_error(self, monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
        secret.write_text("\n", encoding="utf-8")
        monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret))
        assert complaint() == f"{VARIABLE}_FILE: {secret} is empty"

    def test_a_malformed_secret_is_not_shown(self, monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
        secret.write_text("redis://:p/S3krit@host", encoding="utf-8")
        monkeypatch.setenv("INFERENCE_BROKER__URL_FILE", str(secret))
        said = complaint()
        assert said.startswith("broker.url:")
        assert "S3krit" not in said

    def test_what_is_no_secret_has_no_file(self, monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
        monkeypatch.setenv("INFERENCE_API__PORT_FILE", str(secret))
        assert complaint().startswith("api.port_file: unknown key")
        monkeypatch.delenv("INFERENCE_API__PORT_FILE")
        monkeypatch.setenv("INFERENCE_DATA_DIR_FILE", str(secret))
        assert complaint().startswith("INFERENCE_DATA_DIR_FILE: unknown setting")


class TestVariablesOfAConfiguration:
    DOCUMENT: ClassVar = {"s3": {"secret_key": "${OF_MINIO}"}}

    def test_a_file_fills_a_variable(self, monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
        monkeypatch.setenv("OF_MINIO_FILE", str(secret))
        assert load(self.DOCUMENT).s3.secret_key.get_secret_value() == "from a file"

    def test_both_are_too_many(self, monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
        monkeypatch.setenv("OF_MINIO_FILE", str(secret))
        monkeypatch.setenv("OF_MINIO", "S3krit")
        assert complaint(self.DOCUMENT) == "OF_MINIO and OF_MINIO_FILE are both set; remove one of them"

    def test_a_default_is_for_neither(self, monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
        document = {"s3": {"secret_key": "${OF_MINIO:-default}"}}
        assert load(document).s3.secret_key.get_secret_value() == "default"
        monkeypatch.setenv("OF_MINIO_FILE", str(secret))
        assert load(document).s3.secret_key.get_secret_value() == "from a file"
