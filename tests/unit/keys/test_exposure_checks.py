"""Check at the start whether the API would serve other machines without a key."""

from __future__ import annotations

from typing import Any

import pytest
from support.keys import new_key

from inference.errors import ConfigurationError, ServiceUnavailable
from inference.keys.exposure import check_exposure
from inference.keys.key_file import WatchedKeyFile
from inference.keys.key_ring import KeyRing, asks_for_keys
from inference.keys.key_store import KeyStore, StoredKeys
from inference.settings import Settings

OUTSIDE = {"host": "0.0.0.0", "port": 30005}  # noqa: S104 not bound
INSIDE = {"host": "127.0.0.1", "port": 30005}


class FixedStore(KeyStore):
    """Record store with these keys; None: it is down."""

    def __init__(self, stored: StoredKeys | None) -> None:
        self._stored = stored

    def read(self, known: StoredKeys | None = None) -> StoredKeys:
        if self._stored is None:
            raise ServiceUnavailable("down")
        return self._stored


EMPTY = FixedStore(StoredKeys())
DOWN = FixedStore(None)


def check(store: KeyStore, api: dict[str, Any], **security: Any) -> None:
    settings = Settings.model_validate({"api": api, "security": security})
    check_exposure(settings, KeyRing(WatchedKeyFile(None), store, is_on=asks_for_keys(settings)))


@pytest.mark.parametrize(
    ("api", "message"),
    [
        (OUTSIDE, "api.host: other machines may reach 0.0.0.0, and there is no key"),
        (INSIDE | {"commands": "[::]:30006"}, "api.commands: other machines may reach ::, and there is no key"),
    ],
)
def test_other_machines_are_not_served_without_a_key(api: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(EMPTY, api)
    assert caught.value.detail.startswith(message)
    _, key = new_key()
    check(FixedStore(StoredKeys(b"1", {key.key_id: key})), api)


def test_anonymous_callers_are_served_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check(EMPTY, OUTSIDE, anonymous=True)
    assert "OPEN TO OTHER MACHINES at http://" in caplog.text
    caplog.clear()
    check(EMPTY, INSIDE, anonymous=True)
    assert caplog.text == ""


def test_loopback_needs_no_key(caplog: pytest.LogCaptureFixture) -> None:
    check(DOWN, INSIDE)
    assert caplog.text == ""
    check(EMPTY, INSIDE, require_keys=True)
    assert "there is no key yet" in caplog.text


def test_store_that_is_down_holds_up_no_start(caplog: pytest.LogCaptureFixture) -> None:
    check(DOWN, OUTSIDE)
    assert "it is not known whether there is a key" in caplog.text
