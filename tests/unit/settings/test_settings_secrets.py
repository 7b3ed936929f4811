"""Secrets in settings: neither errors nor the effective settings show one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.settings_files import complaint, load

from inference.settings import Settings, masked_settings, shown_value


class TestSecrets:
    URLS = (
        "redis://user:secret@host:6379/0",
        "rediss://:secret@host/0",
        "redis://:p@secret@host/0",
        "unix:///run/redis.sock?db=0&password=secret",
        "redis://host/0?password=secret",
        "sentinel://:secret@host:1,other:2/0?master=m&sentinel_password=secret",
    )

    @pytest.mark.parametrize("url", URLS)
    def test_the_effective_settings_show_no_password(self, url: str) -> None:
        shown = masked_settings(load({"broker": {"url": url}, "task_store": {"url": url}}))
        assert "secret" not in str([shown["broker"], shown["task_store"]])
        assert "host" in shown["broker"]["url"] or "redis.sock" in shown["broker"]["url"]

    def test_secrets_of_webhooks_are_shown_neither_in_settings_nor_in_errors(self) -> None:
        secret = f"whsec_{'c2l4' * 8}"
        settings = load({"webhooks": {"secret": f"{secret} {secret}"}})
        assert settings.webhooks.secrets == (secret, secret)
        assert "c2l4" not in str([masked_settings(settings), settings])
        assert "c2l4" not in complaint({"webhooks": {"secret": secret[:-8]}})

    @pytest.mark.parametrize(
        "url",
        [
            "http://user:secret@host",
            "https://:p@secret@host/",
            "http://host?password=secret",
            "redis://secret@host",
            "redis://:p/secret@host",
            "redis://:p?secret@host",
            "redis://:p#secret@host",
            "sentinel://host?sentinel_password=secret",
        ],
    )
    def test_an_error_shows_no_password(self, url: str) -> None:
        said = complaint({"broker": {"url": url}})
        assert said.startswith("broker.url:")
        assert "secret" not in said

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("broker.url", "user:S3krit@host"),
            ("broker.url", "S3krit@host"),
            ("task_store.url", "redis:S3krit"),
            ("task_store.url", "redis://host?password=a&S3krit=1"),
            ("broker.url", "redis://user:12?S3=krit@host"),
            ("s3.endpoint", "key:S3krit@host:9000"),
            ("kafka.bootstrap_servers", "user:S3krit@host"),
            ("kafka.bootstrap_servers", ["user:S3krit@host"]),
            ("api.host", "user:S3krit@host"),
            ("mongodb.url", "mongodb://user:12/?S3=krit@host"),
            ("broker.url", "amqp://user:12?S3=krit@host"),
            ("broker.url", "amqp://user:p@host?S3krit=1"),
        ],
    )
    def test_an_error_shows_nothing_before_an_at_sign(self, key: str, value: Any) -> None:
        section, _, name = key.partition(".")
        said = complaint({"task_store": {"url": "redis://h"}} | {section: {name: value}})
        assert said.startswith(f"{key}: ")
        assert "S3" not in said
        assert "krit" not in said

    @pytest.mark.parametrize("value", ["key:S3krit@host:9000", "http://key:S3krit@host"])
    def test_a_translated_value_shows_no_secret(self, value: str) -> None:
        assert "S3krit" not in shown_value({"endpoint": [value]})["endpoint"][0]
        assert shown_value("team@example.org") == "team@example.org"

    def test_an_error_of_the_whole_shows_no_secret(self) -> None:
        """Errors of the whole document do not show all of it: secrets are plain text there."""
        said = complaint({"broker": {"url": "amqp://host"}, "s3": {"secret_key": "hidden"}})
        assert said == "settings: task_store.url is needed: the task records are stored in Redis, and the broker is RabbitMQ"

    @pytest.mark.parametrize(
        "document",
        [
            {"broker": {"url": "redis://:S3krit@host/0"}},
            {"task_store": {"url": "sentinel://me:S3krit@host?master=m&sentinel_password=S3krit"}},
            {"broker": {"url": "unix://:S3krit@/run/redis.sock"}},
            {
                "broker": {"url": "amqp://me:S3krit@one;amqp://me:S3krit@two"},
                "task_store": {"url": "rediss://host?password=S3krit"},
            },
            {"mongodb": {"url": "mongodb://me:S3krit@host"}, "s3": {"access_key": "S3krit", "secret_key": "S3krit"}},
        ],
        ids=str,
    )
    def test_a_printed_setting_shows_no_secret(self, document: dict[str, Any]) -> None:
        """A traceback, a debugger or a careless log line prints it like this."""
        settings = load(document)
        sections = [getattr(settings, name) for name in document]
        printed = [form(one) for one in (settings, *sections) for form in (repr, str, format)]
        assert not [text for text in printed if "S3krit" in text]

    @pytest.mark.parametrize(
        "wrong", [{"broker": "redis://:S3krit@host"}, {"broker": {"url": "redis://:S3krit@host/x"}}], ids=str
    )
    def test_a_raw_validation_error_shows_no_secret(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as error:
            Settings(**wrong)
        assert "S3krit" not in repr(error.value) + str(error.value)

    def test_the_effective_settings_mask_every_secret(self) -> None:
        shown = masked_settings(
            load({"s3": {"access_key": "hidden", "secret_key": "hidden"}, "mongodb": {"url": "mongodb://hidden"}})
        )
        assert "hidden" not in str(shown)

    def test_the_effective_settings_are_plain_and_complete(self) -> None:
        shown = masked_settings(load({"broker": {"url": "redis://host/0"}}))
        assert yaml.safe_load(yaml.safe_dump(shown)) == shown
        again = shown | {"mongodb": shown["mongodb"] | {"url": "mongodb://host"}}  # a masked URL is none
        assert masked_settings(load(again)) == shown
