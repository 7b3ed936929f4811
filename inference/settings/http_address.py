"""The address that the API listens on: as it is configured, bound, and shown as a URL."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from typing import Any

from inference.errors import ConfigurationError

#: Documentation's (RFC 5737, RFC 3849): nothing is sent there, but the system says which of its addresses it would use.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
#: A part of a host name between dots; underscores are common in containers' names.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MAX_NAME_LENGTH = 253


def is_host_name(text: str) -> bool:
    """Whether `text` has the form of a host name or an IPv4 address. Names in other scripts are counted as DNS encodes them."""
    try:
        name = text.removesuffix(".").encode("ascii" if text.isascii() else "idna").decode()
    except UnicodeError:
        return False
    return len(name) <= _MAX_NAME_LENGTH and all(map(_LABEL.fullmatch, name.split(".")))


def listening_host(text: str) -> str:
    """The host name or address to listen on, without the brackets that URLs put around IPv6.

    Raises:
        ValueError: it is something else, such as a URL or HOST:PORT.
    """
    if not text:
        return "0.0.0.0"  # noqa: S104 as bind() itself understands an empty host
    host = text
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not is_host_name(host) and not is_ipv6(host):
        raise ValueError("must be a host name or an address alone, such as 127.0.0.1, 0.0.0.0 or ::1; the port is api.port")
    return host


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def normal_host(host: str) -> str:
    """A host name or an address, without brackets, in the one form in which hosts are compared."""
    if is_address(host):
        address = ipaddress.ip_address(host)
        return str(getattr(address, "ipv4_mapped", None) or address)
    name = host.lower().removesuffix(".")
    return name if name.isascii() else name.encode("idna").decode()


def addresses_of(host: str) -> set[str]:
    """The addresses that a name or an address to listen on stands for; none where it does not resolve."""
    try:
        return {normal_host(str(entry[4][0])) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def is_wildcard(addresses: Iterable[str]) -> bool:
    """Whether who listens on them listens on every interface."""
    return any(ipaddress.ip_address(address).is_unspecified for address in addresses)


def is_loopback_only(addresses: Iterable[str]) -> bool:
    """Whether who listens on them is reached from this machine alone."""
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def authority(host: str, port: int) -> str:
    """HOST:PORT as URLs have it, IPv6 in brackets."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_url(host: str, port: int) -> str:
    """The URL of a server that listens on `host`, for clients on the same machine."""
    if is_address(host) and ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://{authority(host, port)}"


def network_url(host: str, port: int) -> str | None:
    """The URL of a server that listens on `host`, for clients on other machines; None where only this machine reaches it."""
    addresses = addresses_of(host)
    if is_loopback_only(addresses):
        return None
    if is_wildcard(addresses):
        families = _ELSEWHERE if any(":" in address for address in addresses) else (socket.AF_INET,)
        host = next(filter(None, map(_own_address, families)), socket.gethostname())
    return f"http://{authority(host, port)}"


def _own_address(family: socket.AddressFamily) -> str | None:
    """The address that this machine has in its network; None where it has none of this family."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE[family], 9))
            address = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if is_loopback_only([address]) else address


def bound_socket(host: str, port: int, *, key: str = "api.host") -> socket.socket:
    """A TCP socket bound to the address. A name that has addresses of both families is bound to its first IPv4 address.

    Args:
        key: the setting that names `host`.

    Raises:
        ConfigurationError: the name does not resolve, the address is not this machine's, or the port cannot be had.
    """
    family, address = _resolved(host, port, key)
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(host, port, key, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _cannot_listen(host, port, key, error) from error
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
        why = error.strerror if isinstance(error, OSError) else "no host name"
        raise ConfigurationError(f"{key}: {host} does not resolve to an address: {why}", field=key) from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _cannot_listen(host: str, port: int, key: str, error: OSError) -> ConfigurationError:
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
        return ConfigurationError(
            f"{key}: {host} is no address of this machine; 127.0.0.1 is reached from here alone, 0.0.0.0 from everywhere",
            field=key,
        )
    return ConfigurationError(
        f"cannot listen on {authority(host, port)}: {os.strerror(error.errno or 0)}; choose another with --port",
        field="api.port",
    )
