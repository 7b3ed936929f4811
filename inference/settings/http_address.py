"""Address on which the API listens: its configuration, its socket, and its URL."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from typing import Any

from inference.errors import ConfigurationError

#: Addresses for documentation (RFC 5737, RFC 3849): no packet is sent, but the system tells which source address it would use.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
#: Part of a host name between dots; underscores are common in containers' names.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MAX_NAME_LENGTH = 253
_MAX_PORT = 65_535


def is_host_name(text: str) -> bool:
    """Whether `text` has the form of a host name or an IPv4 address. Other scripts count in the encoding of DNS."""
    try:
        name = text.removesuffix(".").encode("ascii" if text.isascii() else "idna").decode()
    except UnicodeError:
        return False
    return len(name) <= _MAX_NAME_LENGTH and all(map(_LABEL.fullmatch, name.split(".")))


def listening_host(text: str) -> str:
    """Return the host name or address to listen on, without the brackets that URLs put around IPv6.

    Raises:
        ValueError: it is neither, but for example a URL or HOST:PORT.
    """
    if not text:
        return "0.0.0.0"  # noqa: S104 bind() treats an empty host in the same way
    host = text
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not is_host_name(host) and not is_ipv6(host):
        raise ValueError("must be a host name or an address alone, such as 127.0.0.1, 0.0.0.0 or ::1; the port is api.port")
    return host


def address_or_switch(value: Any) -> bool | str:
    """Return true, false or HOST:PORT.

    Raises:
        ValueError: the value is none of these.
    """
    if isinstance(value, bool):
        return value
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return authority(*host_and_port(text))


def host_and_port(text: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of HOST:PORT. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= _MAX_PORT:
        raise ValueError("must be true, false, or HOST:PORT such as 127.0.0.1:30006")
    return listening_host(host), int(port)


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def normal_host(host: str) -> str:
    """Return a host name or an address, without brackets, in the form in which hosts are compared."""
    if is_address(host):
        address = ipaddress.ip_address(host)
        return str(getattr(address, "ipv4_mapped", None) or address)
    name = host.lower().removesuffix(".")
    return name if name.isascii() else name.encode("idna").decode()


def addresses_of(host: str) -> set[str]:
    """Return the addresses of a name or address to listen on; none if it does not resolve."""
    try:
        return {normal_host(str(entry[4][0])) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def is_wildcard(addresses: Iterable[str]) -> bool:
    """Whether a server on these addresses listens on every interface."""
    return any(ipaddress.ip_address(address).is_unspecified for address in addresses)


def is_loopback_only(addresses: Iterable[str]) -> bool:
    """Whether only this machine reaches a server on these addresses."""
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def authority(host: str, port: int) -> str:
    """Return HOST:PORT as in URLs, IPv6 in brackets."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_url(host: str, port: int) -> str:
    """Return the URL of a server that listens on `host`, for clients on the same machine."""
    if is_address(host) and ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://{authority(host, port)}"


def network_url(host: str, port: int) -> str | None:
    """Return the URL of a server that listens on `host`, for clients on other machines; None if only this machine reaches it."""
    addresses = addresses_of(host)
    if is_loopback_only(addresses):
        return None
    if is_wildcard(addresses):
        families = _ELSEWHERE if any(":" in address for address in addresses) else (socket.AF_INET,)
        host = next(filter(None, map(_own_address, families)), socket.gethostname())
    return f"http://{authority(host, port)}"


def _own_address(family: socket.AddressFamily) -> str | None:
    """Return the address of this machine in its network; None if it has no address of this family."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE[family], 9))
            address = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if is_loopback_only([address]) else address


def bound_socket(host: str, port: int, *, key: str = "api.host", port_key: str = "") -> socket.socket:
    """Return a TCP socket bound to the address. For a name with addresses of both families, this is its first IPv4 address.

    Args:
        key: the setting that names `host`.
        port_key: the setting that names `port`; empty: it is `key`, or `api.port`.

    Raises:
        ConfigurationError: the name does not resolve, the address is not this machine's, or the port is not available.
    """
    family, address = _resolved(host, port, key)
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(host, port, key, port_key, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _cannot_listen(host, port, key, port_key, error) from error
    return bound


def is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _resolved(host: str, port: int, key: str) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigurationError(f"{key}: {host} does not resolve to an address: {reason}", field=key) from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _cannot_listen(host: str, port: int, key: str, port_key: str, error: OSError) -> ConfigurationError:
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
        return ConfigurationError(
            f"{key}: {host} is not an address of this machine; use 127.0.0.1 for this machine only, 0.0.0.0 for all interfaces",
            field=key,
        )
    problem = f"cannot listen on {authority(host, port)}: {os.strerror(error.errno or 0)}"
    if port_key:
        variable = f"INFERENCE_{port_key.upper().replace('.', '__')}"
        return ConfigurationError(f"{port_key}: {problem}; give each process of a machine its own by {variable}", field=port_key)
    name, option = ("api.port", "--port") if key == "api.host" else (key, key)
    return ConfigurationError(f"{problem}; choose another with {option}", field=name)
