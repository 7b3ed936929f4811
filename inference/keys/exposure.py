"""Addresses at which the API may not be reached without a key."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from inference.errors import ConfigurationError, ServiceUnavailable
from inference.keys.key_ring import KeyRing, exposed_addresses
from inference.settings import Settings
from inference.settings.http_address import network_url
from inference.settings.installation import COMMAND

logger = logging.getLogger(__name__)


def check_exposure(settings: Settings, keys: KeyRing) -> None:
    """Refuse to serve other machines without a key, unless the settings say that everybody is meant.

    While the record store does not answer, the start goes on: callers are asked for a key all the same.

    Raises:
        ConfigurationError: other machines may reach the API, and there is no key.
    """
    exposed = exposed_addresses(settings)
    if settings.security.anonymous:
        _warn_if_open(exposed.values())
    elif keys.is_on and not _has_key(keys):
        if exposed:
            key, (host, _) = next(iter(exposed.items()))
            raise ConfigurationError(_REFUSAL.format(key=key, host=host, command=COMMAND), field=key)
        logger.warning("there is no key yet, and callers are asked for one: %s", _CREATE.format(command=COMMAND))


_CREATE = "create one with `{command} keys create --owner NAME --role admin`"
_REFUSAL = (
    "{key}: other machines may reach {host}, and there is no key that they could be asked for; "
    + _CREATE
    + ", name a file with keys (security.keys_file), or serve everybody without a key (security.anonymous: true);"
    " 127.0.0.1 serves only this machine"
)


def _has_key(keys: KeyRing) -> bool:
    try:
        return bool(keys.list_keys())
    except ServiceUnavailable as error:
        logger.warning("it is not known whether there is a key: %s", error.detail)
        return True


def _warn_if_open(addresses: Iterable[tuple[str, int]]) -> None:
    for host, port in addresses:
        logger.warning(
            "OPEN TO OTHER MACHINES at %s: security.anonymous lets everybody who reaches this address classify images, read and"
            " cancel all tasks and change the models, without a key; restrict access by a firewall or a proxy",
            network_url(host, port),
        )
