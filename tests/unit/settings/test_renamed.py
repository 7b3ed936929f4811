"""Settings that have another name now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.settings_files import complaint, load

from inference.settings import Settings
from inference.settings.renamed import RENAMED

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
