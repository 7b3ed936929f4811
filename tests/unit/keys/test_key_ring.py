"""Look-up of keys: who is found, from which source, and for how long while a source does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.fake_clock import FakeClock
from support.keys import key_document, key_of, new_key

from inference.access import Limits, Role
from inference.errors import ServiceUnavailable
from inference.keys.entries import Key
from inference.keys.key_file import WatchedKeyFile
from inference.keys.key_ring import MAX_AGE_S, KeyRing, asks_for_keys
from inference.keys.key_store import KeyStore, StoredKeys
from inference.keys.key_text import claimed_id, new_key_text
from inference.settings import Settings


class FakeKeyStore(KeyStore):
    """Keys in memory."""

    def __init__(self) -> None:
        self.stored = StoredKeys()
        self.is_down = False
        self.readings = 0

    def read(self, known: StoredKeys | None = None) -> StoredKeys:
        self.readings += 1
        if self.is_down:
            raise ServiceUnavailable("down")
        return self.stored

    def hold(self, *keys: Key) -> None:
        self.stored = StoredKeys(b"1", {key.key_id: key for key in keys})


class Rig:
    """A ring of which the thread never runs."""

    def __init__(self, file: Path | None = None) -> None:
        self.store = FakeKeyStore()
        self.clock = FakeClock()
        self.time = datetime(2027, 1, 15, tzinfo=UTC)
        self.threads: list[Callable[[], None]] = []
        self.ring = KeyRing(
            WatchedKeyFile(file),
            self.store,
            is_on=True,
            clock=self.clock,
            now=lambda: self.time,
            start=self.threads.append,
        )


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_caller_is_who_the_key_says(rig: Rig) -> None:
    text = new_key_text()
    rig.store.hold(key_of(text, "grace", Role.ADMIN, limits=Limits(images_per_day=5)))
    caller = rig.ring.find(text)
    assert caller is not None
    assert (caller.owner, caller.role, caller.limits.images_per_day) == ("grace", Role.ADMIN, 5)
    assert (caller.key_id, rig.ring.explain(text)) == (claimed_id(text), "valid")


def test_other_texts_find_nobody(rig: Rig) -> None:
    text, key = new_key()
    rig.store.hold(key)
    other = new_key_text()
    for wrong, reason in ((other, "unknown"), ("", "malformed"), (text[:-1], "malformed"), (f" {text}", "malformed")):
        assert (rig.ring.find(wrong), rig.ring.explain(wrong)) == (None, reason)


def test_wrong_end_of_a_known_key_finds_nobody(rig: Rig) -> None:
    text, key = new_key()
    rig.store.hold(key)
    assert rig.ring.find(text)
    for wrong in (text[:-1], text + "0", text[:14], text[:20] + "\ud800" + text[21:], text.upper()):
        assert (rig.ring.find(wrong), rig.ring.explain(wrong)) == (None, "malformed")


def test_another_secret_with_the_id_of_a_key_finds_nobody(rig: Rig) -> None:
    text, key = new_key()
    rig.store.hold(replace(key_of(new_key_text()), caller=key.caller))
    assert (rig.ring.find(text), rig.ring.explain(text)) == (None, "unknown")


def test_malformed_text_is_not_looked_up(rig: Rig) -> None:
    text = new_key_text()
    assert rig.ring.find(text[:-1] + ("0" if text[-1] != "0" else "1")) is None
    assert rig.store.readings == 0


def test_key_expires_without_a_reading(rig: Rig) -> None:
    text = new_key_text()
    rig.store.hold(key_of(text, expires_at=rig.time + timedelta(seconds=10)))
    assert rig.ring.find(text) is not None
    rig.time += timedelta(seconds=10)
    assert (rig.ring.find(text), rig.ring.explain(text)) == (None, "expired")


def test_look_ups_between_two_readings_ask_no_store(rig: Rig) -> None:
    text, key = new_key()
    rig.store.hold(key)
    assert all(rig.ring.find(text) for _ in range(100))
    assert not any(rig.ring.find(new_key_text()) for _ in range(100))
    assert (rig.store.readings, len(rig.threads)) == (1, 1)


def test_revoked_key_is_gone_after_the_next_reading(rig: Rig) -> None:
    text, key = new_key()
    rig.store.hold(key)
    assert rig.ring.find(text)
    rig.store.hold()
    rig.ring.refresh()
    assert rig.ring.find(text) is None


class TestStoreThatIsDown:
    def test_stored_keys_count_for_a_minute(self, rig: Rig) -> None:
        text, key = new_key()
        rig.store.hold(key)
        assert rig.ring.find(text)
        rig.store.is_down = True
        rig.clock.advance(MAX_AGE_S)
        assert rig.ring.find(text)
        rig.clock.advance(1)
        with pytest.raises(ServiceUnavailable, match="keys cannot be read"):
            rig.ring.find(text)
        rig.store.is_down = False
        rig.ring.refresh()
        assert rig.ring.find(text)

    def test_keys_of_the_file_count_for_ever(self, tmp_path: Path) -> None:
        text, key = new_key("grace")
        file = tmp_path / "keys.json"
        file.write_text(json.dumps(key_document(key)))
        rig = Rig(file)
        rig.store.is_down = True
        rig.clock.advance(10 * MAX_AGE_S)
        caller = rig.ring.find(text)
        assert caller is not None
        assert caller.owner == "grace"

    def test_it_refuses_malformed_keys_all_the_same(self, rig: Rig) -> None:
        rig.store.is_down = True
        assert rig.ring.find("rk_") is None


def test_key_in_the_file_takes_precedence(tmp_path: Path) -> None:
    text, key = new_key("grace")
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(key_document(key)))
    rig = Rig(file)
    rig.store.hold(key_of(text, "mallory", Role.ADMIN), key_of(new_key_text(), "alan"))
    caller = rig.ring.find(text)
    assert caller is not None
    assert caller.owner == "grace"
    assert sorted(key.caller.owner for key in rig.ring.list_keys()) == ["alan", "grace"]


def test_owner_without_settings_has_the_defaults(rig: Rig) -> None:
    assert rig.ring.owner("ada").webhook.secrets == ()


@pytest.mark.parametrize(
    ("host", "security", "asks"),
    [
        ("127.0.0.1", {}, False),
        ("::1", {}, False),
        ("localhost", {}, False),
        ("127.0.0.1", {"require_keys": True}, True),
        ("127.0.0.1", {"keys_file": "keys.yaml"}, True),
        ("0.0.0.0", {}, True),  # noqa: S104 not bound
        ("::", {}, True),
        ("192.0.2.7", {}, True),
        ("nobody.invalid", {}, True),
        ("0.0.0.0", {"anonymous": True}, False),  # noqa: S104 not bound
    ],
)
def test_keys_are_asked_for_where_other_machines_reach_the_api(host: str, security: dict[str, object], asks: bool) -> None:
    settings = Settings.model_validate({"api": {"host": host}, "security": security})
    assert asks_for_keys(settings) is asks
