"""Defaults of a wheel, which runs in any folder; those of a clone are in test_settings.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import ConfigurationError
from inference.settings import Settings, config_path, installation, load_settings, loader


@pytest.fixture(autouse=True)
def in_a_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "IS_WHEEL", True)
    monkeypatch.setattr(loader, "IS_WHEEL", True)
    monkeypatch.chdir(tmp_path)


def test_its_own_configuration_names_its_own_files(repository: Path) -> None:
    file = config_path()
    assert file == repository / "configurations/local.yaml"

    settings = load_settings(file)
    assert settings.models == (repository / "models/efficientnet-lite0",)
    assert settings.sample_image == repository / "samples/chelsea.jpg"


def test_configuration_in_the_working_directory_takes_precedence(tmp_path: Path) -> None:
    file = tmp_path / "configurations/local.yaml"
    file.parent.mkdir()
    file.write_text("models: [models/mine]\n", encoding="utf-8")

    assert config_path() == Path("configurations/local.yaml")
    assert load_settings(config_path()).models == (Path("models/mine"),)


def test_configuration_without_models_has_the_default_model(repository: Path) -> None:
    assert Settings().models == (repository / "models/efficientnet-lite0",)


@pytest.mark.parametrize("named", [None, "", "relative/state"])
def test_data_is_in_the_state_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if named is not None:
        monkeypatch.setenv("XDG_STATE_HOME", named)

    assert Settings().data_dir == tmp_path / ".local/state/rohe-inference-service"


def test_user_can_name_another_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    assert Settings().data_dir == tmp_path / "state/rohe-inference-service"
    assert load_settings(None, {"data_dir": "here"}).data_dir == Path("here")


def test_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigurationError, match="set data_dir"):
        load_settings(None)
