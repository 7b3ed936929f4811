"""Look-up of keys: all keys of the file and of the record store, in memory.

A thread reads the file and the record store every `REFRESH_INTERVAL_S`, so that a look-up needs neither of them, and a new or
revoked key is known everywhere within 5 s.
"""

from __future__ import annotations

import hmac
import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from inference.access import Caller
from inference.errors import ServiceUnavailable
from inference.keys.entries import Key, OwnerSettings
from inference.keys.key_file import WatchedKeyFile
from inference.keys.key_store import KeyStore, StoredKeys
from inference.keys.key_text import digest_of, id_of, is_well_formed
from inference.runtime.ttl_cache import run_in_thread
from inference.settings import Settings
from inference.settings.http_address import addresses_of, is_loopback_only

logger = logging.getLogger(__name__)

#: Seconds between two readings of the keys; a revoked key is refused everywhere after this time and that of a reading.
REFRESH_INTERVAL_S = 2.0
#: Seconds for which stored keys are accepted while the record store does not answer; no task can be accepted or read then.
MAX_AGE_S = 60.0

_NO_SETTINGS = OwnerSettings()


def asks_for_keys(settings: Settings) -> bool:
    """Whether the API of these settings serves only callers with a key."""
    security = settings.security
    if security.anonymous:
        return False
    return security.keys_file is not None or security.require_keys or bool(exposed_addresses(settings))


def exposed_addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return the hosts and ports of the API that other machines may reach, by the setting that names them."""
    found = settings.api.listening_addresses
    return {key: (host, port) for key, (host, port) in found.items() if not _is_loopback(host)}


def _is_loopback(host: str) -> bool:
    addresses = addresses_of(host)
    return bool(addresses) and is_loopback_only(addresses)


class KeyRing:
    """All valid keys, and the settings of their owners.

    Args:
        file: keys of the file.
        store: keys of the record store.
        is_on: whether callers are asked for a key. It does not change while a process runs: the last key that is revoked must not
            open the service to everybody.
        clock: in seconds.
        now: the time, by which keys expire.
        start: starts the thread.
    """

    def __init__(
        self,
        file: WatchedKeyFile,
        store: KeyStore,
        *,
        is_on: bool,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        start: Callable[[Callable[[], None]], None] = run_in_thread,
    ) -> None:
        self.is_on = is_on
        self._file = file
        self._store = store
        self._clock = clock
        self._now = now
        self._start = start
        self._is_started = False
        self._is_closed = threading.Event()
        self._starting = threading.Lock()
        self._stored = StoredKeys()
        #: time of the last reading of the record store that succeeded, on `clock`
        self._read_at = -math.inf
        self._has_failed = False

    def find(self, text: str) -> Caller | None:
        """Return the caller with this key; None if the text is malformed, or the key unknown, expired or revoked.

        Raises:
            ServiceUnavailable: the key is not in the file, and the record store has not answered for `MAX_AGE_S`.
        """
        key = self._get(text)
        return key.caller if key is not None and self._fault(key, text) is None else None

    def explain(self, text: str) -> str:
        """Return the reason for which `find` has no caller for this text, for the audit log. Raises ServiceUnavailable."""
        if not is_well_formed(text):
            return "malformed"
        key = self._get(text)
        return "unknown" if key is None else self._fault(key, text) or "valid"

    def expires_at(self, key_id: str) -> datetime | None:
        """Return the time from which a key that was found is not valid; None if it has none, or is gone."""
        key = self._file.content.keys.get(key_id) or self._stored.keys.get(key_id)
        return None if key is None else key.expires_at

    def owner(self, name: str) -> OwnerSettings:
        """Return the settings of an owner, which the file with keys has; the defaults if it has none."""
        if self._file.path is None:
            return _NO_SETTINGS
        self._start_once()
        return self._file.content.owners.get(name, _NO_SETTINGS)

    def list_keys(self) -> list[Key]:
        """Return all keys of file and record store, expired ones too, as they are now. Raises ServiceUnavailable."""
        self._file.refresh()
        return list({**self._store.read().keys, **self._file.content.keys}.values())

    @property
    def is_file_broken(self) -> bool:
        """Whether the last reading of the file with keys found errors, so that keys of an earlier version count."""
        return self._file.is_broken

    def list_expiring(self, within: timedelta) -> list[Key]:
        """Return the keys that expire within this time, the first one first.

        Keys that are replaced, by one of the same owner and role that is valid for longer, are left out.

        Raises ServiceUnavailable.
        """
        self.refresh()
        now = self._now()
        keys = {**self._stored.keys, **self._file.content.keys}.values()
        lasting = {(k.caller.owner, k.caller.role) for k in keys if k.expires_at is None or k.expires_at > now + within}
        found = [(k.expires_at, k) for k in keys if k.expires_at is not None and now < k.expires_at <= now + within]
        ordered = sorted(found, key=lambda one: one[0])
        return [key for _, key in ordered if (key.caller.owner, key.caller.role) not in lasting]

    def refresh(self) -> None:
        """Read the file and the record store, as far as they have changed. Raises ServiceUnavailable."""
        self._file.refresh()
        began = self._clock()
        self._stored = self._store.read(self._stored)
        self._read_at = began

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()

    def _get(self, text: str) -> Key | None:
        """Return the key whose id a text has. A text whose id is known is not checked for its form: the digest shows it too."""
        key_id = id_of(text)
        key = self._file.content.keys.get(key_id)
        if key is None and self._is_fresh():
            key = self._stored.keys.get(key_id)
        return self._get_at_first(text) if key is None else key

    def _get_at_first(self, text: str) -> Key | None:
        """Look up a key that is not known, or in a process that has not read the keys yet, or not lately."""
        if not is_well_formed(text):
            return None
        self._start_once()
        key = self._file.content.keys.get(id_of(text))
        if key is None and not self._is_fresh():
            raise ServiceUnavailable(
                "the keys cannot be read, since the task store does not answer", retry_after_s=REFRESH_INTERVAL_S
            )
        return key or self._stored.keys.get(id_of(text))

    def _is_fresh(self) -> bool:
        return self._clock() - self._read_at <= MAX_AGE_S

    def _fault(self, key: Key, text: str) -> str | None:
        """Return the reason for which a text is not this key, or the key does not count; None if it does."""
        if not hmac.compare_digest(key.digest, digest_of(text)):
            return "unknown"
        if key.expires_at is not None and key.expires_at <= self._now():
            return "expired"
        return None

    def _start_once(self) -> None:
        """Read the keys and start the thread, at the first use: a process that forks must not have it yet."""
        if self._is_started:
            return
        with self._starting:
            if not self._is_started:
                self._refresh_or_log()
                self._start(self._refresh_for_ever)
                self._is_started = True

    def _refresh_for_ever(self) -> None:
        while not self._is_closed.wait(REFRESH_INTERVAL_S):
            self._refresh_or_log()

    def _refresh_or_log(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001 the thread goes on, and look-ups end once the keys are too old
            if not self._has_failed:
                logger.warning("the keys cannot be read: %s", error)
            self._has_failed = True
        else:
            self._has_failed = False


def key_ring(settings: Settings, store: KeyStore) -> KeyRing:
    """Return the keys of a service with these settings."""
    return KeyRing(WatchedKeyFile(settings.security.keys_file), store, is_on=asks_for_keys(settings))
