"""The stored login: where it is, who can read it, and which of several addresses and keys is used."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from rohe_inference.cli.config import (
    DEFAULT_URL,
    Login,
    checked_url,
    config_file,
    load_login,
    remove_login,
    resolve_login,
    store_login,
)

STORED = Login("https://inference.example.org", "secret")


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_login_is_stored_for_its_user_alone(config_home: Path) -> None:
    path = store_login(STORED)

    assert path == config_file() == config_home / "rohe-inference" / "login.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_login() == STORED


def test_login_that_others_can_read_is_replaced_by_one_that_they_cannot(config_home: Path) -> None:
    store_login(Login(DEFAULT_URL)).chmod(0o644)

    path = store_login(STORED)

    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_logout_deletes_it() -> None:
    store_login(STORED)

    assert remove_login()
    assert not remove_login()
    assert load_login() is None


@pytest.mark.parametrize("text", ["{", "[]", '{"url": "http://a"}', '"text"'])
def test_broken_file_is_a_sentence(text: str) -> None:
    store_login(STORED).write_text(text, encoding="utf-8")

    with pytest.raises(click.UsageError, match=r"cannot be read.*login"):
        load_login()


@pytest.mark.parametrize(
    ("url", "api_key", "used"),
    [
        (None, None, STORED),
        ("https://inference.example.org/", None, STORED),
        ("http://other.example.org", None, Login("http://other.example.org")),
        (None, "other", Login(STORED.url, "other")),
        ("http://other.example.org", "other", Login("http://other.example.org", "other")),
        (None, "", Login(STORED.url)),
    ],
)
def test_stored_key_is_sent_to_its_own_address_alone(url: str | None, api_key: str | None, used: Login) -> None:
    store_login(STORED)

    assert resolve_login(url, api_key) == used


def test_without_a_login_the_default_address_is_used() -> None:
    assert resolve_login(None, None) == Login(DEFAULT_URL)


@pytest.mark.parametrize("text", ["localhost:30005", "ftp://a", "http://", "https://a?b=c", "https://a#b", ""])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="is not the address"):
        checked_url(text)


def test_relative_folder_in_the_variable_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert config_file() == tmp_path / ".config" / "rohe-inference" / "login.json"


def test_file_has_nothing_else() -> None:
    assert json.loads(store_login(STORED).read_text(encoding="utf-8")) == {"url": STORED.url, "api_key": "secret"}
