"""Settings that have another name now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.settings_files import complaint, load

from inference.settings import Settings
from inference.settings.renamed_keys import RENAMED, RENAMED_SECTIONS, RENAMED_VALUES

OLD, NEW = "uploads.inline_quiet_max_bytes", "uploads.inline_max_bytes"


@pytest.mark.parametrize(
    ("document", "overrides", "expected"),
    [
        ({"uploads": {"inline_quiet_max_bytes": 100}}, {}, 100),
        ({"uploads": {"inline_quiet_max_bytes": 100, "inline_max_bytes": 50}}, {}, 50),
        ({}, {"uploads": {"inline_quiet_max_bytes": 100}}, 100),
    ],
)
def test_the_old_key_is_read_with_a_warning(
    caplog: pytest.LogCaptureFixture, document: dict[str, Any], overrides: dict[str, Any], expected: int
) -> None:
    assert load(document, overrides).uploads.inline_max_bytes == expected
    (record,) = caplog.records
    assert (record.levelname, OLD in record.getMessage(), f"now {NEW}" in record.getMessage()) == ("WARNING", True, True)


@pytest.mark.parametrize("is_env_file", [False, True])
def test_the_old_key_is_read_from_the_environment(workplace: Path, monkeypatch: pytest.MonkeyPatch, is_env_file: bool) -> None:
    name = "INFERENCE_UPLOADS__INLINE_QUIET_MAX_BYTES"
    if is_env_file:
        (workplace / ".env").write_text(f"{name}=100\n", encoding="utf-8")
    else:
        monkeypatch.setenv(name, "100")
    assert load().uploads.inline_max_bytes == 100


@pytest.mark.parametrize("name", ["INFERENCE_SERVED_MODEL", "inference_served_model"])
@pytest.mark.parametrize("is_env_file", [False, True])
def test_the_variable_of_an_old_key_outside_of_a_section_is_read_with_a_warning(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, is_env_file: bool
) -> None:
    if is_env_file:
        (workplace / ".env").write_text(f"{name}=vgg\n", encoding="utf-8")
    else:
        monkeypatch.setenv(name, "vgg")
    assert load({"default_model": "digits"}).default_model == "vgg"
    (record,) = caplog.records
    assert record.getMessage().startswith("served_model is now default_model")


def test_a_variable_of_another_program_in_the_env_file_is_no_old_key(workplace: Path) -> None:
    (workplace / ".env").write_text("SERVED_MODEL=vgg\n", encoding="utf-8")
    assert load().default_model is None


@pytest.mark.parametrize(
    ("environment", "env_file", "overrides"),
    [
        ("777", "", {}),
        ("", "777", {}),
        ("777", "7", {}),
        ("7", "7", {"uploads": {"inline_quiet_max_bytes": 777}}),
        ("7", "7", {"uploads": {"inline_max_bytes": 777}}),
    ],
)
def test_the_old_key_of_a_source_takes_precedence_over_the_new_one_of_a_source_below(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, environment: str, env_file: str, overrides: dict[str, Any]
) -> None:
    name = "INFERENCE_UPLOADS__INLINE_QUIET_MAX_BYTES"
    monkeypatch.setenv(name, environment)
    (workplace / ".env").write_text(f"{name}={env_file}\n", encoding="utf-8")
    assert load({"uploads": {"inline_max_bytes": 5}}, overrides).uploads.inline_max_bytes == 777


def test_an_old_key_of_a_section_is_no_variable_with_a_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_UPLOADS.INLINE_QUIET_MAX_BYTES", "777")
    assert "unknown setting" in complaint()


def test_a_section_in_json_may_have_an_old_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_UPLOADS", '{"inline_quiet_max_bytes": 777}')
    assert load({"uploads": {"inline_max_bytes": 5}}).uploads.inline_max_bytes == 777


def test_without_an_old_key_there_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    load({"uploads": {"inline_max_bytes": 100}})
    assert not caplog.records


def test_each_new_key_is_a_setting_of_the_same_section_and_no_old_key_is_one() -> None:
    def is_setting(key: str) -> bool:
        *sections, name = key.split(".")
        place: Any = Settings
        for section in sections:
            place = place.model_fields[section].annotation
        return name in place.model_fields

    for old, new in RENAMED.items():
        assert (is_setting(old), is_setting(new)) == (False, True)
        assert old.rpartition(".")[0] == new.rpartition(".")[0]


OLD_SECTION = {"uploads": {"store": "minio"}, "minio": {"endpoint": "old:9000", "access_key": "me", "secret_key": "mine"}}


def test_an_old_section_is_read_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings = load(OLD_SECTION)
    assert (settings.uploads.store, settings.s3.endpoint, settings.s3.access_key.get_secret_value()) == ("s3", "old:9000", "me")
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in said] == ["minio is now s3", "uploads.store"]


def test_an_old_section_fills_in_for_the_new_one() -> None:
    s3 = load(OLD_SECTION | {"s3": {"endpoint": "new:9000"}}).s3
    assert (s3.endpoint, s3.access_key.get_secret_value()) == ("new:9000", "me")


@pytest.mark.parametrize("is_env_file", [False, True])
@pytest.mark.parametrize("variable", [("INFERENCE_MINIO__ENDPOINT", "h:9000"), ("INFERENCE_MINIO", '{"endpoint": "h:9000"}')])
def test_an_old_section_is_read_from_the_environment(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, is_env_file: bool, variable: tuple[str, str]
) -> None:
    if is_env_file:
        (workplace / ".env").write_text("=".join(variable) + "\n", encoding="utf-8")
    else:
        monkeypatch.setenv(*variable)
    monkeypatch.setenv("INFERENCE_UPLOADS__STORE", "minio")
    settings = load({"s3": {"endpoint": "file:9000", "region": "eu"}})
    assert (settings.uploads.store, settings.s3.endpoint, settings.s3.region) == ("s3", "h:9000", "eu")


def test_a_secret_in_a_file_may_have_the_old_sections_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("mine\n", encoding="utf-8")
    monkeypatch.setenv("INFERENCE_MINIO__SECRET_KEY_FILE", str(tmp_path / "key"))
    assert load().s3.secret_key.get_secret_value() == "mine"


def test_the_variable_of_the_new_section_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_MINIO__ENDPOINT", "old:9000")
    monkeypatch.setenv("INFERENCE_S3__ENDPOINT", "new:9000")
    assert load().s3.endpoint == "new:9000"


def test_a_wrong_key_of_an_old_section_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint({"minio": {"endpont": "h:9000"}}).startswith("s3.endpont: unknown key")
    monkeypatch.setenv("INFERENCE_MINIO_ENDPOINT", "h:9000")
    assert "INFERENCE_MINIO_ENDPOINT: unknown setting" in complaint()


def test_each_new_section_and_value_is_a_setting_and_no_old_one_is() -> None:
    for old, new in RENAMED_SECTIONS.items():
        assert (old in Settings.model_fields, new in Settings.model_fields) == (False, True)
    for (key, old), new in RENAMED_VALUES.items():
        section, name = key.split(".")
        assert getattr(getattr(load({section: {name: old}}), section), name) == new
