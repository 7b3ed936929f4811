"""Settings that have another name now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.settings_files import enter_workplace, load

from inference.settings import Settings
from inference.settings.renamed import RENAMED

OLD, NEW = "uploads.inline_quiet_max_bytes", "uploads.inline_max_bytes"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_workplace(tmp_path, monkeypatch)


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
