"""Forms of a Redis URL. redis-py and kombu each accept only some of them; `inference/runtime/redis.py` translates.

    redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]
    rediss://…[?ssl_ca_certs=FILE&…]                             with TLS
    valkey://… valkeys://…                                       the same two for Valkey
    sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DB]?master=NAME[&sentinel_password=…]
    sentinels://…?master=NAME[&ssl_ca_certs=FILE&…]              with TLS, to the sentinels too
    unix://[[USER]:PASSWORD@]/PATH[?db=DB]

USER and PASSWORD are valid for the Redis servers. Special characters are percent-encoded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from inference.settings.addresses import split_url
from inference.settings.http_address import is_host_name, is_ipv6

_PORT = 6379
_SENTINEL_PORT = 26379
_WRONG_SERVER = "its server must be HOST or HOST:PORT; in a password, characters as / ? # [ ] are percent-encoded"
#: Longest path of a Unix socket on Linux, bytes.
MAX_SOCKET_PATH = 107
#: Schemes, and whether they mean TLS.
_DIRECT = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_BY_SENTINEL = {"sentinel": False, "sentinels": True}
REDIS_SCHEMES = frozenset({*_DIRECT, *_BY_SENTINEL, "unix"})
_OPTIONS = {"db", "username", "password"}
_SENTINEL_OPTIONS = {"master", "sentinel_username", "sentinel_password"}
_TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_REQUIREMENTS = ("required", "optional", "none")
_TLS_CHOICES: Mapping[str, Mapping[str, str | bool]] = {
    "ssl_cert_reqs": {name: name for name in _REQUIREMENTS} | {f"CERT_{name.upper()}": name for name in _REQUIREMENTS},
    "ssl_check_hostname": {"true": True, "false": False},
}


@dataclass(frozen=True)
class RedisAddress:
    """One Redis server, or the master that the sentinels name. `repr` shows no secrets."""

    #: (host, port) of the server, or of each sentinel; none for a Unix socket
    nodes: tuple[tuple[str, int], ...] = ()
    socket: Path | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    #: redis-py's `ssl_…` arguments; None: no TLS
    tls: Mapping[str, str | bool] | None = None
    #: name of the master at the sentinels; None: no sentinels
    master: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL. Raises ValueError with a description of the problem, without the URL's secrets."""
        parts = split_url(url, "redis://USER:PASSWORD@HOST:PORT/DB")
        by_sentinel = parts.scheme in _BY_SENTINEL
        has_tls = (_DIRECT | _BY_SENTINEL).get(parts.scheme, False)
        # Before the options: the rest of a password that is not percent-encoded would be read as options.
        nodes = () if parts.scheme == "unix" else _nodes(parts, _SENTINEL_PORT if by_sentinel else _PORT)
        options = _options(parts, by_sentinel=by_sentinel, has_tls=has_tls)
        if by_sentinel and "master" not in options:
            raise ValueError("the sentinels need to know which server is meant: ?master=NAME")
        username, password = _credentials(parts)
        path = unquote(parts.path)
        if not nodes:
            _check_socket(path, parts.netloc)
        return cls(
            nodes=nodes,
            socket=None if nodes else Path(path),
            db=_database(options.get("db", "") or (path.strip("/") if nodes else "") or "0"),
            username=options.get("username", username),
            password=options.get("password", password),
            tls=_tls(options) if has_tls else None,
            master=options.get("master"),
            sentinel_username=options.get("sentinel_username"),
            sentinel_password=options.get("sentinel_password"),
        )


def _options(parts: SplitResult, *, by_sentinel: bool, has_tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    password = None
    allowed = _OPTIONS | (_SENTINEL_OPTIONS if by_sentinel else set())
    allowed |= _TLS_FILES | set(_TLS_CHOICES) if has_tls else set()
    for name in options:
        if name.endswith("password"):
            password = name
        if name not in allowed:
            # After a password the name may be the rest of the password.
            shown = f"as the one after {password} (& is %26 in a password)" if password else repr(name)
            raise ValueError(f"{parts.scheme}:// has no option {shown}; it has {', '.join(sorted(allowed))}")
    return {name: value for name, value in options.items() if value}


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    if user and not colon:
        raise ValueError("a password comes after a colon: //:PASSWORD@HOST")
    return unquote(user) or None, unquote(password) or None


def _check_socket(path: str, netloc: str) -> None:
    if not path or (netloc and not netloc.endswith("@")):
        raise ValueError("a socket has a path: unix:///PATH, or unix://USER:PASSWORD@/PATH")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(f"the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes")


def _nodes(parts: SplitResult, default_port: int) -> tuple[tuple[str, int], ...]:
    nodes: list[tuple[str, int]] = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        try:
            node = urlsplit(f"//{text}")
            host, port = node.hostname, node.port
        except ValueError:
            host = port = None
        host = unquote(host or "")
        if not (is_host_name(host) or is_ipv6(host)) or port == 0 or (nodes and parts.scheme in _DIRECT):
            raise ValueError(_WRONG_SERVER)
        nodes.append((host, port or default_port))
    return tuple(nodes)


def _database(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):  # noqa: PLR2004 servers have few databases
        raise ValueError("the database is a number: redis://HOST:PORT/0")
    return int(text)


def _tls(options: Mapping[str, str]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    for name in sorted(_TLS_FILES & set(options)):
        if not os.path.isfile(options[name]):  # noqa: PTH113 Path.is_file raises if a folder may not be read
            raise ValueError(f"{name}: there is no file {options[name]}")
        if not os.access(options[name], os.R_OK):
            raise ValueError(f"{name}: cannot read {options[name]}")
        found[name] = options[name]
    for name, choices in _TLS_CHOICES.items():
        if name in options:
            if options[name] not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}")
            found[name] = choices[options[name]]
    return found
