"""The address that the API listens on: what is one, what cannot be listened on, and the URL that is printed for it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from inference.errors import ConfigurationError
from inference.settings import Settings, load_settings
from inference.settings.http_address import authority, bound_socket, listening_host, network_url, reachable_url


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("my-host_1.example.org", "my-host_1.example.org"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::]", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("", "0.0.0.0"),  # noqa: S104
    ],
)
def test_a_host_is_a_name_or_an_address_with_or_without_brackets(text: str, host: str) -> None:
    assert listening_host(text) == host
    assert Settings(api={"host": text}).api.host == host


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1",
        "http://[::1]:80",
        "127.0.0.1:80",
        "localhost:80",
        "[::1]:80",
        "[::1",
        "10.0.0.0/8",
        "unix:/run/x",
        "a b",
    ],
)
def test_anything_else_is_one_sentence_by_key(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"api": {"host": text}})
    assert caught.value.detail.startswith("api.host: must be a host name or an address alone, such as")
    assert "\n" not in caught.value.detail


def test_the_host_of_the_environment_may_be_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_API__HOST", "[::1]")
    assert load_settings(None).api.host == "::1"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
        ("fe80::1%eth0", "http://[fe80::1%25eth0]:80"),
    ],
)
def test_the_url_can_be_reached_from_the_same_machine(host: str, url: str) -> None:
    assert reachable_url(host, 80) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "nobody.invalid"])
def test_other_machines_reach_no_loopback(host: str) -> None:
    assert network_url(host, 80) is None


def test_other_machines_reach_an_address_of_this_one() -> None:
    assert network_url("192.0.2.9", 80) == "http://192.0.2.9:80"
    for host in ("0.0.0.0", "::"):  # noqa: S104
        url = network_url(host, 80)
        assert url is not None
        assert not url.startswith(("http://0.0.0.0", "http://[::]", "http://127."))


def test_an_authority_has_brackets_around_ipv6_alone() -> None:
    assert (authority("::1", 80), authority("a", 80)) == ("[::1]:80", "a:80")


@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("127.0.0.1", socket.AF_INET),
        ("localhost", socket.AF_INET),
        ("0.0.0.0", socket.AF_INET),  # noqa: S104
        ("::1", socket.AF_INET6),
        ("::", socket.AF_INET6),
    ],
)
def test_a_socket_is_bound_in_the_hosts_family(host: str, family: int) -> None:
    with bound_socket(host, 0) as bound:
        assert bound.family == family
        assert bound.getsockname()[1] > 0


def test_a_name_with_addresses_of_both_families_is_its_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with bound_socket("both", 0) as bound:
        assert bound.family == socket.AF_INET
    del found[1]
    with bound_socket("ipv6-alone", 0) as bound:
        assert bound.family == socket.AF_INET6


class TestAnAddressThatCannotBeListenedOn:
    def complaint(self, host: str, port: int) -> tuple[str, str | None]:
        with pytest.raises(ConfigurationError) as caught:
            bound_socket(host, port)
        return caught.value.detail, caught.value.field

    @pytest.mark.parametrize("host", ["nobody.invalid", "256.1.1.1", "a" * 64, "ü" * 64])
    def test_a_name_that_does_not_resolve(self, host: str) -> None:
        detail, field = self.complaint(host, 30005)
        assert detail.startswith(f"api.host: {host} does not resolve to an address: ")
        assert field == "api.host"

    @pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "fe80::1"])
    def test_an_address_of_another_machine(self, host: str) -> None:
        detail, field = self.complaint(host, 30005)
        assert detail.startswith(f"api.host: {host} is not an address of this machine; ")
        assert field == "api.host"

    @pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::]")])
    def test_a_port_in_use(self, host: str, shown: str) -> None:
        with bound_socket(host, 0) as taken:
            taken.listen()
            port = taken.getsockname()[1]
            expected = f"cannot listen on {shown}:{port}: Address already in use; choose another with --port"
            assert self.complaint(host, port) == (expected, "api.port")

    def test_a_port_that_needs_privileges(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Unprivileged(socket.socket):
            def bind(self, address: Any) -> None:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(socket, "socket", Unprivileged)
        expected = "cannot listen on 127.0.0.1:80: Permission denied; choose another with --port"
        assert self.complaint("127.0.0.1", 80) == (expected, "api.port")
