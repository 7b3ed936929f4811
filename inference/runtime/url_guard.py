"""HTTP requests to URLs that clients name: only to public addresses, and to private ones that the rules list.

A name is looked up once; each of its addresses is checked, and the connection is made to a checked address, so that a name that
changes its address in between (DNS rebinding) gains nothing. `ssrfguard` has the table of addresses, which decodes IPv4 addresses
in IPv6 ones, and makes the connection; http.client speaks HTTP over it, with the name in SNI, in the check of the certificate and
in `Host`. Redirects are not followed, proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from email.message import Message
from ipaddress import ip_network
from typing import Any, Self
from urllib.parse import quote, urlsplit

import ssrfguard

from inference import __version__
from inference.settings.client_url_section import ClientUrlSection

#: The default port of each scheme.
_PORTS = {"http": 80, "https": 443}
#: Addresses to which a name may point that are tried.
_MAX_ATTEMPTS = 3
#: A last label as in 0x7f.1 or 127.0.0.0x1, which getaddrinfo reads as a number (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)")
#: Characters of a path and a query that stay as they are; others, such as all outside ASCII, are percent-encoded.
_SAFE = "/%?:@!$&'()*+,;=[]"
_CHUNK_BYTES = 2**16

#: Blocks that are not public, in addition to the registries' ones.
_MORE_DENIED = (
    ssrfguard.Block(ip_network("::ffff:0:0:0/96"), "IPv4-translated Address", "RFC2765", ssrfguard.Reach.DENIED),
    ssrfguard.Block(ip_network("168.63.129.16/32"), "Azure's virtual platform address", "Azure", ssrfguard.Reach.DENIED),
)

#: Parameter of the library, in its messages; the settings have other names.
_LIBRARY_NAME = re.compile(r"is not in allowed_(ports|schemes)")
#: Takes the arguments of `socket.getaddrinfo`, and returns as it does.
Resolver = Callable[..., Any]


class UrlError(Exception):
    """A request failed. The message names no address to which a name points, so that clients may see it."""


class UrlRefused(UrlError):
    """The rules do not allow the URL, or an address of its host: another try will not help unless the name changes."""


class UrlUnreachable(UrlError):
    """No usable answer in time: an unknown name, no connection, a wrong certificate, or not HTTP."""


class AnswerTooLarge(UrlError):
    """The answer has more bytes than the caller takes."""


@dataclass(frozen=True)
class UrlRules:
    """Destinations that a guard allows, and its limits of time.

    Args:
        allow_http: also without TLS.
        ports: allowed ports; none: 443, and 80 if `allow_http`.
        hosts: allowed host names, or `*.NAME` for all names below NAME; none: any.
        private_networks: networks that are allowed though they are not public, such as 10.1.0.0/16.
        connect_timeout_s: for the connection, over all addresses of a name, seconds.
        timeout_s: for all of a request, from the look-up of the name to the last byte, seconds.
    """

    allow_http: bool = False
    ports: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()
    private_networks: tuple[str, ...] = ()
    connect_timeout_s: float = 5
    timeout_s: float = 15

    @classmethod
    def of(cls, section: ClientUrlSection) -> Self:
        """Return the rules of a section of the settings."""
        return cls(
            section.allow_http,
            section.ports,
            section.hosts,
            section.private_networks,
            section.connect_timeout_s,
            section.timeout_s,
        )


@dataclass(frozen=True)
class Answer:
    status: int
    #: names in any case
    headers: Message
    body: bytes = b""


class UrlGuard:
    """Makes requests within rules. Threads and greenlets may share it.

    Args:
        ssl_context: default: the system's authorities, or those of SSL_CERT_FILE.
        resolver: stands for `socket.getaddrinfo`; its answers are checked too.

    Raises:
        ValueError: a rule has no meaning, such as `*` among `hosts`.
    """

    def __init__(
        self, rules: UrlRules, *, ssl_context: ssl.SSLContext | None = None, resolver: Resolver = socket.getaddrinfo
    ) -> None:
        schemes = frozenset({"http", "https"} if rules.allow_http else {"https"})
        self._rules = rules
        self._policy = ssrfguard.Policy(
            allowed_schemes=schemes,
            allowed_ports=frozenset(rules.ports or (_PORTS[scheme] for scheme in schemes)),
            allowed_networks=tuple(ip_network(network) for network in rules.private_networks),
            denied_networks=ssrfguard.AddressTable(ssrfguard.DEFAULT_DENIED.blocks + _MORE_DENIED),
            max_connection_attempts=_MAX_ATTEMPTS,
        )
        self._hosts = ssrfguard.Policy(allowed_hosts=frozenset(rules.hosts))
        self._ssl_context = ssl_context or ssl.create_default_context()
        self._resolver = resolver

    def check(self, url: str) -> str:
        """Check everything that needs no network: scheme, host, port, and an address in the place of a name.

        Returns HOST:PORT in lower case, with the port that the URL leaves out.

        Raises:
            UrlRefused: as any request to `url` would.
        """
        target = self._target(url)
        return f"{target.host}:{target.port}"

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST `body`; return status and headers. The answer's body is not read. Raises UrlRefused, UrlUnreachable."""
        return self._request("POST", url, body, headers, max_bytes=None)

    def fetch(self, url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None) -> Answer:
        """GET `url`; return the answer, with any status.

        Raises:
            UrlRefused, UrlUnreachable.
            AnswerTooLarge: the body has more than `max_bytes`.
        """
        return self._request("GET", url, None, headers or {}, max_bytes=max_bytes)

    def _request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, max_bytes: int | None) -> Answer:
        """Make a request; read a body of up to `max_bytes`, None: no body."""
        deadline = _Deadline(self._rules.timeout_s)
        target = self._target(url)
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.default_port = _PORTS[target.scheme]  # which `Host` leaves out
        connection.auto_open = 0  # never connects by itself, to the name
        try:
            connection.sock = _TimedSocket(self._connect(target, deadline), deadline)
            connection.request(method, _path_of(url), body, {"User-Agent": f"rohe-inference-service/{__version__}", **headers})
            with connection.getresponse() as response:
                received = b"" if max_bytes is None else _read(response, max_bytes)
                return Answer(response.status, response.headers, received)
        except TimeoutError as error:
            raise UrlUnreachable(f"{target.host} does not answer within {self._rules.timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise UrlUnreachable(f"{target.host} does not answer as an HTTP server: {type(error).__name__}") from error
        finally:
            connection.close()

    def _target(self, url: str) -> ssrfguard.Target:
        """Return the origin of a URL. Raises UrlRefused."""
        try:
            target = self._policy.check_url(url)
        except ssrfguard.BlockedURLError as error:
            reason = _LIBRARY_NAME.sub(r"is not among the allowed \1", error.reason)
            raise UrlRefused(f"the URL is not allowed: {reason}") from error
        last_label = target.host.rstrip(".").rpartition(".")[2]
        if not target.is_literal_address and _NUMBER.fullmatch(last_label):
            raise UrlRefused("the URL is not allowed: its host is an IPv4 address in an unusual notation")
        try:
            self._hosts.check_host(target.host)
        except ssrfguard.BlockedURLError as error:
            raise UrlRefused(f"the URL is not allowed: its host {target.host} is not in the list of allowed hosts") from error
        return target

    def _connect(self, target: ssrfguard.Target, deadline: _Deadline) -> socket.socket:
        """Return a connection to a checked address, with TLS for https. Raises UrlRefused, UrlUnreachable, TimeoutError."""
        connect_by = _Deadline(min(self._rules.connect_timeout_s, deadline.left_s()))
        resolver = None if target.is_literal_address else self._within(connect_by)
        try:
            addresses = ssrfguard.resolve(target, policy=self._policy, resolver=resolver)
        except ssrfguard.SSRFGuardError as error:
            raise UrlRefused(f"the host {target.host} has an address that is not public") from error
        except (OSError, UnicodeError) as error:
            raise UrlUnreachable(f"the name {target.host} cannot be resolved") from error
        attempt_s = connect_by.left_s() / min(len(addresses), _MAX_ATTEMPTS)
        try:
            plain = ssrfguard.connect(addresses, policy=self._policy, timeout=attempt_s)
        except ssrfguard.SSRFGuardError as error:
            raise UrlRefused(f"the connection to {target.host} did not reach the address that was checked") from error
        except OSError as error:
            raise UrlUnreachable(f"no connection to {target.host}") from error
        return plain if target.scheme == "http" else self._with_tls(plain, target, deadline)

    def _with_tls(self, plain: socket.socket, target: ssrfguard.Target, deadline: _Deadline) -> socket.socket:
        try:
            plain.settimeout(deadline.left_s())
            return self._ssl_context.wrap_socket(plain, server_hostname=target.host.rstrip("."))
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise UrlUnreachable(f"the certificate of {target.host} is not valid: {error.verify_message}") from error
        except BaseException:
            plain.close()
            raise

    def _within(self, deadline: _Deadline) -> Resolver:
        """Return a resolver that gives up at a deadline: `getaddrinfo` has no timeout. Its thread ends when the look-up does."""

        def look_up(*query: Any) -> Any:
            found: Future[Any] = Future()

            def run() -> None:
                try:
                    found.set_result(self._resolver(*query))
                except Exception as error:  # noqa: BLE001 raised again by `result`
                    found.set_exception(error)

            threading.Thread(target=run, name="look-up", daemon=True).start()
            return found.result(timeout=deadline.left_s())

        return look_up


class _Deadline:
    def __init__(self, timeout_s: float) -> None:
        self._at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds until the deadline. Raises TimeoutError if it has passed."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _TimedSocket:
    """The part of a socket that http.client uses, with one deadline for all calls, so that a slow answer ends too."""

    def __init__(self, plain: socket.socket, deadline: _Deadline) -> None:
        self._plain, self._deadline = plain, deadline

    def sendall(self, data: Any) -> None:
        self._plain.settimeout(self._deadline.left_s())
        self._plain.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._plain, self._deadline))

    def close(self) -> None:
        self._plain.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, plain: socket.socket, deadline: _Deadline) -> None:
        self._plain, self._deadline = plain, deadline
        # The socket stays open until this file is closed: http.client closes the socket before it has read the body.
        self._file = plain.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._plain.settimeout(self._deadline.left_s())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """Read a body. Raises AnswerTooLarge; http.client.HTTPException if the connection ended before the body did."""
    chunks: Iterable[bytes] = iter(lambda: response.read(_CHUNK_BYTES), b"")
    if (response.length or 0) > max_bytes:
        raise AnswerTooLarge(f"the answer has {response.length} bytes, more than {max_bytes}")
    received = bytearray()
    for chunk in chunks:
        received += chunk
        if len(received) > max_bytes:
            raise AnswerTooLarge(f"the answer has more than {max_bytes} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(received)


def _path_of(url: str) -> str:
    """Return the path and the query of a URL, in ASCII."""
    split = urlsplit(url)
    path = split.path if split.path.startswith("/") else f"/{split.path}"
    return quote(f"{path}?{split.query}" if split.query else path, safe=_SAFE)
