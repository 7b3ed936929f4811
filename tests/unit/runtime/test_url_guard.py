"""The URL guard: addresses that it refuses, one look-up, names in TLS and Host, limits of time and size. Real sockets."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.certificates import Certificates, make_certificates
from support.receiver import Received, Receiver, Reply, running_receiver

from inference.runtime.url_guard import AnswerTooLarge, UrlGuard, UrlRefused, UrlRules, UrlUnreachable

NAME = "hooks.example"
LOOPBACK = ("127.0.0.0/8",)


class Names:
    """A resolver: each look-up of any name gives the next list of addresses, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.look_ups = 0

    def __call__(self, host: str, port: int, *_rest: Any) -> list[Any]:
        found = self._answers[min(self.look_ups, len(self._answers) - 1)]
        self.look_ups += 1
        family = {ip: socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in found}
        return [(family[ip], socket.SOCK_STREAM, 6, "", (ip, port, 0, 0) if ":" in ip else (ip, port)) for ip in found]


def no_look_up(*query: Any) -> Any:
    raise AssertionError(f"looked up {query}")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"), f"DNS:{NAME}")


def guard_for(receiver: Receiver, resolver: Any = no_look_up, **rules: Any) -> UrlGuard:
    return UrlGuard(
        UrlRules(**{"allow_http": True, "ports": (receiver.port,), "private_networks": LOOPBACK, "timeout_s": 10} | rules),
        resolver=resolver,
    )


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),  # noqa: S104
        *("255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "168.63.129.16"),
        *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]"),
        *("[::ffff:10.0.0.1]", "[::10.0.0.1]", "[::ffff:0:10.0.0.1]"),  # mapped, compatible, translated
        *("[64:ff9b::10.0.0.1]", "[64:ff9b:1::10.0.0.1]"),  # NAT64
        *("[2002:a00:1::1]", "[2001:0:a00:1::1]", "[2001:0:808:808:0:0:f5ff:fffe]"),  # 6to4, Teredo: its server, its client
    ],
)
def test_an_address_that_is_not_public_is_refused_without_a_look_up(host: str) -> None:
    guard = UrlGuard(UrlRules(), resolver=no_look_up)
    with pytest.raises(UrlRefused):
        guard.check(f"https://{host}/")
    with pytest.raises(UrlRefused):
        guard.send(f"https://{host}/", b"", {})


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "[64:ff9b::8.8.8.8]", "hooks.example", "xn--bcher-kva.example"])
def test_a_public_address_or_a_name_passes_the_check(host: str) -> None:
    UrlGuard(UrlRules(), resolver=no_look_up).check(f"https://{host}/path?query")


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0177.0.0.1", "127.1", "127.0.0.1.", "0x7f000001", "0x7f.1", "127.0.0.0x1", "0x7f.0x0.0x0.0x1"),
        *("134744072", "0x8080808", "010.8.8.8"),  # public ones too
        *("①②⑦.0.0.1", "127。0。0。1", "[::1%25lo]", "a@127.0.0.1"),
    ],
)
def test_an_unusual_notation_of_an_address_is_refused(host: str) -> None:
    with pytest.raises(UrlRefused):
        UrlGuard(UrlRules(), resolver=no_look_up).check(f"https://{host}/")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://hooks.example/", r"scheme 'http' is not among the allowed schemes \(https\)"),
        ("file:///etc/passwd", "scheme"),
        ("//hooks.example/", "scheme"),
        ("https:///path", "host"),
        ("https://user:secret@hooks.example/", "credentials"),
        ("https://hooks.example:22/", r"port 22 is not among the allowed ports \(443\)"),
        ("https://hooks.example:80/", "port"),
        ("https://hooks.example:0/", "port"),
        ("https://hooks.example/a\r\nX-Header: 1", "control character"),
        ("https://hooks.example\\@127.0.0.1/", "credentials"),
        ("https://" + "a." * 200 + "example/", "characters"),
        ("https://hooks.example/" + "a" * 9000, "longer"),
    ],
)
def test_a_url_that_the_rules_do_not_allow_is_refused_with_the_reason(url: str, part: str) -> None:
    with pytest.raises(UrlRefused, match=part) as refused:
        UrlGuard(UrlRules(), resolver=no_look_up).check(url)
    assert "secret" not in str(refused.value)


_ANY_TEXT_GUARD = UrlGuard(UrlRules(), resolver=no_look_up)


@given(st.text(max_size=30), st.text(max_size=60), st.text(max_size=20))
def test_any_text_is_allowed_or_refused(scheme: str, host: str, path: str) -> None:
    for url in (f"{scheme}://{host}/{path}", f"https://{host}/{path}", host):
        try:
            assert ":" in _ANY_TEXT_GUARD.check(url)
        except UrlRefused:
            continue


def test_only_listed_hosts_are_allowed_if_there_are_any() -> None:
    guard = UrlGuard(UrlRules(hosts=("hooks.example", "*.example.org")), resolver=no_look_up)
    for host in ("hooks.example", "HOOKS.example.", "a.example.org", "a.b.example.org"):
        guard.check(f"https://{host}/")
    for host in ("example", "a.hooks.example", "example.org", "evil-example.org", "hooks.example.evil.com", "8.8.8.8"):
        with pytest.raises(UrlRefused, match="list of allowed hosts"):
            guard.check(f"https://{host}/")


@pytest.mark.parametrize("rules", [{"hosts": ("*",)}, {"hosts": ("",)}, {"private_networks": ("64:ff9b::/96",)}, {"ports": (0,)}])
def test_a_rule_without_a_meaning_is_refused_at_the_start(rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed_"):
        UrlGuard(UrlRules(**rules))


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"]])
def test_a_name_with_an_address_that_is_not_public_is_refused_and_nothing_is_sent(
    receiver: Receiver, addresses: list[str]
) -> None:
    guard = guard_for(receiver, Names(addresses), private_networks=())
    with pytest.raises(UrlRefused, match="not public") as refused:
        guard.send(receiver.url(NAME), b"", {})
    assert receiver.received == []
    assert not any(address in str(refused.value) for address in addresses)


def test_a_name_is_looked_up_once_and_the_connection_goes_to_the_address_that_was_checked(receiver: Receiver) -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    guard = guard_for(receiver, names, private_networks=("127.0.0.1/32",))
    assert guard.send(receiver.url(NAME), b"{}", {}).status == 200
    assert names.look_ups == 1
    assert len(receiver.received) == 1
    with pytest.raises(UrlRefused):
        guard.send(receiver.url(NAME), b"{}", {})


def test_a_request_has_the_method_the_path_the_headers_and_the_host(receiver: Receiver) -> None:
    guard = guard_for(receiver, Names(["127.0.0.1"]))
    guard.send(receiver.url(NAME, "/a%20b/é?q=1&r=ü#part"), b"body", {"webhook-id": "msg_1"})
    (request,) = receiver.received
    assert (request.method, request.path, request.body) == ("POST", "/a%20b/%C3%A9?q=1&r=%C3%BC", b"body")
    assert request.headers["Host"] == f"{NAME}:{receiver.port}"
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["User-Agent"].startswith("rohe-inference-service/")


def test_the_next_address_of_a_name_is_tried_if_one_does_not_answer(receiver: Receiver) -> None:
    guard = guard_for(receiver, Names(["127.0.0.9", "127.0.0.1"]))  # nothing listens on the first
    assert guard.send(receiver.url(NAME), b"", {}).status == 200


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.reply = lambda _request, _handler: Reply(status, {"Location": receiver.url(path="/elsewhere")})
    guard = guard_for(receiver)
    assert guard.send(receiver.url(), b"", {}).status == status
    assert guard.fetch(receiver.url(), max_bytes=10).status == status
    assert [request.path for request in receiver.received] == ["/", "/"]


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert guard_for(receiver).send(receiver.url(), b"", {}).status == 200


def test_a_body_up_to_the_limit_is_fetched(receiver: Receiver) -> None:
    receiver.reply = lambda _request, _handler: Reply(body=b"x" * 200_000, headers={"Content-Type": "image/png"})
    answer = guard_for(receiver).fetch(receiver.url(), max_bytes=200_000)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"x" * 200_000, "image/png")


def test_a_larger_body_is_refused_whether_or_not_its_length_is_declared(receiver: Receiver) -> None:
    receiver.reply = lambda _request, _handler: Reply(body=b"x" * 200_001)
    with pytest.raises(AnswerTooLarge):
        guard_for(receiver).fetch(receiver.url(), max_bytes=200_000)
    receiver.reply = endless
    with pytest.raises(AnswerTooLarge):
        guard_for(receiver).fetch(receiver.url(), max_bytes=200_000)


def endless(_request: Received, handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 65_536)


def test_a_body_that_ends_early_is_an_error(receiver: Receiver) -> None:
    receiver.reply = lambda _request, _handler: Reply(body=b"half", headers={"Content-Length": "8"})
    with pytest.raises(UrlUnreachable):
        guard_for(receiver).fetch(receiver.url(), max_bytes=100)


@pytest.mark.parametrize("start", [b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n", b""])
def test_an_answer_that_comes_byte_by_byte_ends_at_the_time_limit(receiver: Receiver, start: bytes) -> None:
    def drip(_request: Received, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    receiver.reply = drip
    with pytest.raises(UrlUnreachable, match=r"within 0\.3 s"):
        guard_for(receiver, timeout_s=0.3).fetch(receiver.url(), max_bytes=2**20)


def test_a_look_up_that_takes_too_long_ends_at_the_time_limit(receiver: Receiver) -> None:
    def slow(*_query: Any) -> Any:
        time.sleep(3)
        return []

    with pytest.raises(UrlUnreachable):
        guard_for(receiver, slow, connect_timeout_s=0.1).send(receiver.url(NAME), b"", {})


def test_an_unknown_name_a_closed_port_and_a_server_without_http_are_unreachable(receiver: Receiver) -> None:
    def unknown(*_query: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(UrlUnreachable, match="resolved"):
        guard_for(receiver, unknown).send(receiver.url(NAME), b"", {})
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UrlUnreachable, match="no connection"):
        guard_for(receiver, ports=(port,)).send(f"http://127.0.0.1:{port}/", b"", {})
    receiver.reply = lambda _request, handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n") and None
    with pytest.raises(UrlUnreachable, match="HTTP"):
        guard_for(receiver).send(receiver.url(), b"", {})


@pytest.fixture
def tls_receiver(certificates: Certificates) -> Iterator[tuple[Receiver, list[str]]]:
    """Start a receiver for `NAME` with TLS; the list notes the names of SNI."""
    with running_receiver(certificate=certificates.certificate, key=certificates.key) as receiver:
        names: list[str] = []
        context: ssl.SSLContext = receiver._server.socket.context  # type: ignore[attr-defined]
        context.sni_callback = lambda _socket, name, _context: names.append(name)
        yield receiver, names


def trusting(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.authority))


def tls_guard(receiver: Receiver, context: ssl.SSLContext | None, **rules: Any) -> UrlGuard:
    chosen = UrlRules(ports=(receiver.port,), private_networks=LOOPBACK, **rules)
    return UrlGuard(chosen, resolver=Names(["127.0.0.1"]), ssl_context=context)


def test_tls_names_the_host_and_checks_its_certificate(
    tls_receiver: tuple[Receiver, list[str]], certificates: Certificates
) -> None:
    receiver, names = tls_receiver
    assert tls_guard(receiver, trusting(certificates)).send(receiver.url(NAME), b"{}", {}).status == 200
    assert names == [NAME]
    assert receiver.received[0].headers["Host"] == f"{NAME}:{receiver.port}"


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1"])
def test_a_certificate_of_another_name_is_refused(
    tls_receiver: tuple[Receiver, list[str]], certificates: Certificates, host: str
) -> None:
    receiver, _ = tls_receiver
    with pytest.raises(UrlUnreachable, match="certificate"):
        tls_guard(receiver, trusting(certificates)).send(receiver.url(host), b"{}", {})
    assert receiver.received == []


def test_a_certificate_of_an_unknown_authority_is_refused(tls_receiver: tuple[Receiver, list[str]]) -> None:
    receiver, _ = tls_receiver
    with pytest.raises(UrlUnreachable, match="certificate"):
        tls_guard(receiver, None).send(receiver.url(NAME), b"{}", {})
    assert receiver.received == []


def test_a_server_that_never_shakes_hands_ends_at_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        guard = UrlGuard(UrlRules(ports=(port,), private_networks=LOOPBACK, timeout_s=0.3))
        with pytest.raises(UrlUnreachable, match=r"within 0\.3 s"):
            guard.send(f"https://127.0.0.1:{port}/", b"", {})


_UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from pathlib import Path
from inference.runtime.url_guard import UrlGuard, UrlRules, UrlUnreachable
port = int(sys.argv[1])
guard = UrlGuard(UrlRules(allow_http=True, ports=(port,), private_networks=("127.0.0.0/8", "::1/128"), timeout_s=2))
fetched = gevent.spawn(guard.fetch, f"http://localhost:{port}/ok", max_bytes=100)
slow = gevent.spawn(guard.fetch, f"http://localhost:{port}/slow", max_bytes=100)
assert fetched.get().body == b"fine"
assert not slow.ready(), "one request waited for another"
try:
    slow.get()
except UrlUnreachable as error:
    print(error)
"""


def test_requests_of_greenlets_do_not_wait_for_each_other_and_end_at_the_time_limit(receiver: Receiver) -> None:
    def reply(request: Received, handler: BaseHTTPRequestHandler) -> Reply | None:
        if request.path == "/ok":
            return Reply(body=b"fine")
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)

    receiver.reply = reply
    command = [sys.executable, "-c", _UNDER_GEVENT, str(receiver.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stdout) == (0, "localhost does not answer within 2 s\n"), done.stderr
