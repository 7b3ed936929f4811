"""File with keys: its format, its errors, and new versions of it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.keys import key_document, key_of, new_key

from inference.access import Limits, Role
from inference.errors import ConfigurationError
from inference.keys.entries import LimitsEntry
from inference.keys.key_file import WatchedKeyFile, read_key_file
from inference.keys.key_text import new_key_text
from inference.webhook import WebhookEvent

KEY_ID = "aB3dE6gH9k"
ENTRY = {"owner": "ada", "role": "predict", "sha256": "0" * 64}
SECRET = "whsec_" + "A" * 32


def write(folder: Path, document: Any) -> Path:
    file = folder / "keys.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return file


def complaint(tmp_path: Path, document: Any) -> str:
    file = write(tmp_path, document)
    with pytest.raises(ConfigurationError) as caught:
        read_key_file(file)
    return caught.value.detail.replace(str(file), "FILE")


def test_every_limit_can_be_given() -> None:
    assert list(LimitsEntry.model_fields) == [field.name for field in fields(Limits)]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_keys_are_read_from_both_formats(tmp_path: Path, suffix: str) -> None:
    key = key_of(new_key_text(), "grace", Role.READ, limits=Limits(requests_per_s=1.5))
    file = tmp_path / f"keys.{suffix}"
    file.write_text(json.dumps(key_document(key)), encoding="utf-8")
    assert read_key_file(file).keys == {key.key_id: key}


def test_time_without_a_zone_is_in_utc(tmp_path: Path) -> None:
    for text in ("2027-01-31", "2027-01-31T00:00:00", "'2027-01-31T01:00:00+01:00'", "2027-01-31T00:00:00Z"):
        file = write(tmp_path, f"keys: {{{KEY_ID}: {{owner: ada, role: read, sha256: {'0' * 63}a, expires_at: {text}}}}}")
        expires_at = read_key_file(file).keys[KEY_ID].expires_at
        assert expires_at is not None
        assert expires_at.timestamp() == 1_801_353_600


@pytest.mark.parametrize("document", ["", "keys: {}", "owners: {}"])
def test_file_without_keys_has_none(tmp_path: Path, document: str) -> None:
    assert read_key_file(write(tmp_path, document)).keys == {}


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"role": "boss"}, f"FILE: keys.{KEY_ID}.role: Input should be 'predict', 'read' or 'admin' (got 'boss')"),
            ({"rolle": "read"}, f"FILE: keys.{KEY_ID}.rolle: unknown key; did you mean role?"),
            ({"owner": "a b"}, f"FILE: keys.{KEY_ID}.owner: must be 1 to 64 letters, digits and "),
            ({"limits": {"burst": 0}}, f"FILE: keys.{KEY_ID}.limits.burst: Input should be greater than or equal to 1 (got 0)"),
            (
                {"limits": {"max_priority": 10}},
                f"FILE: keys.{KEY_ID}.limits.max_priority: Input should be less than or equal to 9",
            ),
            ({"limits": {"images": 1}}, f"FILE: keys.{KEY_ID}.limits.images: unknown key; did you mean images_per_day?"),
            ({"expires_at": "soon"}, f"FILE: keys.{KEY_ID}.expires_at: Input should be a valid datetime"),
        ],
    )
    def test_error_names_the_key_and_what_is_right(self, tmp_path: Path, change: dict[str, Any], expected: str) -> None:
        assert complaint(tmp_path, {"keys": {KEY_ID: ENTRY | change}}).startswith(expected)

    def test_all_errors_are_named_at_once(self, tmp_path: Path) -> None:
        document = {"keys": {KEY_ID: {"owner": "ada"}, "zB3dE6gH9k": ENTRY | {"role": "boss"}}}
        assert len(complaint(tmp_path, document).splitlines()) == 3

    def test_key_in_the_place_of_its_digest_is_not_shown(self, tmp_path: Path) -> None:
        text = new_key_text()
        told = complaint(tmp_path, {"keys": {KEY_ID: ENTRY | {"sha256": text}}})
        assert told.startswith(f"FILE: keys.{KEY_ID}.sha256: ")
        assert text[14:] not in told

    def test_key_in_the_place_of_its_id_is_not_shown(self, tmp_path: Path) -> None:
        text = new_key_text()
        told = complaint(tmp_path, {"keys": {text: ENTRY}})
        assert told.startswith(f"FILE: keys: '{text[:13]}' is not the id of a key")
        assert text[14:] not in told

    @pytest.mark.parametrize("document", ["- keys", "{", "keys: [a]", "keys: a", "keys: {1234567890: {}}", "key: {}"])
    def test_file_of_another_form_is_refused(self, tmp_path: Path, document: str) -> None:
        assert "FILE" in complaint(tmp_path, document)

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot read the keys \(security\.keys_file\) in .*none\.yaml: "):
            read_key_file(tmp_path / "none.yaml")


class TestOwners:
    def test_webhook_of_an_owner(self, tmp_path: Path) -> None:
        webhook = {"secret": SECRET, "url": "https://ada.example/", "events": ["task.failed"]}
        read = read_key_file(write(tmp_path, {"owners": {"ada": {"webhook": webhook}}})).owners["ada"].webhook
        assert (read.secrets, read.url, read.events) == ((SECRET,), "https://ada.example/", (WebhookEvent.FAILED,))

    def test_secret_in_a_file_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "ada-webhook").write_text(f"{SECRET}\n", encoding="utf-8")
        document = {"owners": {"ada": {"webhook": {"secret_file": "ada-webhook", "url": "https://ada.example/"}}}}
        read = read_key_file(write(tmp_path, document)).owners["ada"].webhook
        assert (read.secrets, read.url) == ((SECRET,), "https://ada.example/")

    @pytest.mark.parametrize(
        ("webhook", "expected"),
        [
            ({"secret": "hunter2"}, "FILE: owners.ada.webhook.secret: must be whsec_ and the base64 of 24 to 64 bytes"),
            ({"secret": SECRET, "secret_file": "x"}, "FILE: owners.ada.webhook: secret and secret_file both give the secret"),
            ({"secret_file": "wrong"}, "FILE: owners.ada.webhook.secret: must be whsec_"),
            ({"secret_file": "none"}, "cannot read owners.ada.webhook.secret_file, "),
        ],
    )
    def test_wrong_secret_is_not_shown(self, tmp_path: Path, webhook: dict[str, str], expected: str) -> None:
        (tmp_path / "wrong").write_text("hunter2", encoding="utf-8")
        told = complaint(tmp_path, {"owners": {"ada": {"webhook": webhook}}})
        assert told.startswith(expected)
        assert "hunter2" not in told


class TestNewVersion:
    def test_changed_file_is_read_again(self, tmp_path: Path) -> None:
        (_, first), (_, second) = new_key(), new_key()
        watched = WatchedKeyFile(write(tmp_path, key_document(first)))
        watched.refresh()
        assert watched.content.keys == {first.key_id: first}
        known = watched.content
        watched.refresh()
        assert watched.content is known
        write(tmp_path, key_document(first, second))
        watched.refresh()
        assert watched.content.keys == {first.key_id: first, second.key_id: second}

    def test_link_to_another_folder_is_another_version(self, tmp_path: Path) -> None:
        """Replace a secret as Kubernetes does: the file is a link through `..data`, which is a link to a folder."""
        (_, first), (_, second) = new_key(), new_key()
        for name, key in (("one", first), ("two", second)):
            (tmp_path / name).mkdir()
            write(tmp_path / name, key_document(key))
        (tmp_path / "..data").symlink_to("one")
        (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
        watched = WatchedKeyFile(tmp_path / "keys.yaml")
        watched.refresh()
        (tmp_path / "..new").symlink_to("two")
        (tmp_path / "..new").rename(tmp_path / "..data")
        watched.refresh()
        assert watched.content.keys == {second.key_id: second}

    @pytest.mark.parametrize("broken", ["keys: {", "keys: {x: {}}", None])
    def test_version_with_errors_changes_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
    ) -> None:
        (_, first), (_, second) = new_key(), new_key()
        file = write(tmp_path, key_document(first))
        watched = WatchedKeyFile(file)
        watched.refresh()
        file.unlink() if broken is None else file.write_text(broken)
        for _ in range(3):
            watched.refresh()
        assert watched.content.keys == {first.key_id: first}
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
        write(tmp_path, key_document(second))
        watched.refresh()
        assert watched.content.keys == {second.key_id: second}

    def test_changed_secret_is_read_again(self, tmp_path: Path) -> None:
        secret = tmp_path / "ada-webhook"
        secret.write_text(SECRET)
        watched = WatchedKeyFile(write(tmp_path, {"owners": {"ada": {"webhook": {"secret_file": "ada-webhook"}}}}))
        watched.refresh()
        secret.write_text(f"{SECRET} whsec_{'B' * 32}")
        watched.refresh()
        assert len(watched.content.owners["ada"].webhook.secrets) == 2
