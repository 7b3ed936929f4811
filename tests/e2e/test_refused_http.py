"""Requests that are no HTTP that the service takes get a problem document each; odd ones that are legitimate are served."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.api_process import GET, LAST_GET, ApiProcess, get

pytestmark = pytest.mark.process

PROBLEM = "application/problem+json"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
JSON = b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
FORM = b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


REFUSED = {
    "no HTTP at all": (b"hello\r\n\r\n", 400, "invalid_request"),
    "binary": (b"\x00\xff\x01\r\n\r\n", 400, "invalid_request"),
    "HTTP/0.9": (b"GET /\r\n", 400, "invalid_request"),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"),
    "an unknown version": (get(version=b"HTTP/9.9"), 400, "invalid_request"),
    "TLS": (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + b"r" * 90, 400, "invalid_request"),
    "a method in small letters": (get(method=b"get"), 400, "invalid_request"),
    "no path": (get(target=b"health"), 400, "invalid_request"),
    "a space in the path": (get(target=b"/a b"), 400, "invalid_request"),
    "a path that is not ASCII": (get(target="/ä".encode()), 400, "invalid_request"),
    "a path of 5 KB": (get(target=b"/" + b"a" * 5_000), 414, "uri_too_long"),
    "a path of 500 KB": (get(target=b"/" + b"a" * 500_000), 414, "uri_too_long"),
    "a query of 5 KB": (get(target=b"/?" + b"a" * 5_000), 414, "uri_too_long"),
    "a header of 9 KB": (get(b"X: %s\r\n" % (b"a" * 9_000)), 431, "header_fields_too_large"),
    "a header of 3 MB": (get(b"X: %s\r\n" % (b"a" * 3_000_000)), 431, "header_fields_too_large"),
    "200 headers": (get(b"".join(b"X-%d: 1\r\n" % number for number in range(200))), 431, "header_fields_too_large"),
    "a header without a colon": (get(b"X\r\n"), 400, "invalid_request"),
    "a header's name with a space": (get(b"X y: 1\r\n"), 400, "invalid_request"),
    "a folded header": (get(b"X: 1\r\n 2\r\n"), 400, "invalid_request"),
    "a bare CR": (get(b"X: 1\r2\r\n"), 400, "invalid_request"),
    "a NUL": (get(b"X: 1\x002\r\n"), 400, "invalid_request"),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400, "invalid_request"),
    "two hosts": (get(b"Host: y\r\n"), 400, "invalid_request"),
    "two lengths": (get(b"Content-Length: 1\r\nContent-Length: 2\r\n") + b"aa", 400, "invalid_request"),
    "a length and chunks": (get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n", 400, "invalid_request"),
    "a negative length": (get(b"Content-Length: -1\r\n"), 400, "invalid_request"),
    "a length that is no number": (get(b"Content-Length: 1x\r\n"), 400, "invalid_request"),
    "an unknown transfer coding": (get(b"Transfer-Encoding: br\r\n"), 501, "not_implemented"),
    "a compressed transfer coding": (get(b"Transfer-Encoding: gzip, chunked\r\n") + b"0\r\n\r\n", 501, "not_implemented"),
    "chunks that are not the last coding": (get(b"Transfer-Encoding: gzip\r\n"), 400, "invalid_request"),  # RFC 9112, 6.3
    "another expectation": (get(b"Expect: 200-ok\r\nContent-Length: 1\r\n"), 417, "expectation_failed"),
    # these come to the application
    "an unknown method": (get(b"Connection: close\r\n", method=b"BREW"), 405, "method_not_allowed"),
    "a tunnel": (get(method=b"CONNECT", target=b"a:1"), 404, "not_found"),
    "the server as a whole": (get(b"Connection: close\r\n", method=b"OPTIONS", target=b"*"), 404, "not_found"),
    "a chunk's size that is none": (FORM + CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", 400, "invalid_request"),
    "a chunk without its end": (FORM + CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n", 400, "invalid_request"),
    "a trailer that frames": (FORM + CHUNKED + b"3\r\nabc\r\n0\r\nHost: y\r\n\r\n", 400, "invalid_request"),
    "a command's chunk": (b"POST /inference_service_controller" + JSON + CHUNKED + b"zz\r\n", 400, "invalid_request"),
    "a batch's chunk": (b"POST /inference/batch" + JSON + CHUNKED + b"zz\r\n", 400, "invalid_request"),
    "40 MB with the connection's end": (
        FORM + b"Content-Length: 40000000\r\nConnection: close\r\n\r\n" + b"a" * 40_000_000,
        413,
        "payload_too_large",
    ),
}


class TestRefusals:
    @pytest.fixture(autouse=True)
    def serves_on(self, api: ApiProcess) -> Iterator[None]:
        yield
        with api.connect() as connection:
            assert connection.ask(GET).status == 200
        assert "Traceback" not in api.log

    @pytest.mark.parametrize(("request_bytes", "status", "code"), REFUSED.values(), ids=REFUSED)
    def test_each_is_a_problem_document(self, api: ApiProcess, request_bytes: bytes, status: int, code: str) -> None:
        with api.connect() as connection:
            answer = connection.ask(request_bytes)
            assert answer.status == status, answer.body
            assert answer.headers["content-type"] == PROBLEM
            assert answer.headers["connection"] == "close"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "server" not in answer.headers
            assert int(answer.headers["content-length"]) == len(answer.body) < 1_000
            assert (answer.document["status"], answer.document["code"]) == (status, code)
            assert answer.document["type"] == f"urn:problem-type:inference:{code}"
            assert answer.document["title"]
            assert answer.document["detail"]
            connection.socket.shutdown(socket.SHUT_WR)
            assert connection.is_closed()

    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (get(b"Host: y\r\n", target=b"/v2/health/live"), 400),
            (get(b"Transfer-Encoding: br\r\n", target=b"/v2?a=b"), 501),
            (get(b"a" * 9000 + b": 1\r\n", target=b"/v2/models/digits"), 431),
            (get(target=b"/v2/" + b"a" * 5000), 414),
            (b"POST /v2/models/digits/infer" + JSON + CHUNKED + b"zz\r\n", 400),
            (b"GET /v2 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ],
    )
    def test_below_v2_each_is_an_error_of_its_protocol(self, api: ApiProcess, request_bytes: bytes, status: int) -> None:
        with api.connect() as connection:
            answer = connection.ask(request_bytes)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
        assert answer.document.keys() == {"error"}

    @pytest.mark.parametrize(
        ("request_bytes", "status", "code"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
            (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "misdirected_request"),
            (b"GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n", 421, "misdirected_request"),
            (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 421, "misdirected_request"),
            (b"GET / HTTP/1.1\r\nHost: me@localhost\r\n\r\n", 400, "invalid_request"),
            (get(target=b"http://evil.example/"), 421, "misdirected_request"),
            (get(b"Origin: http://evil.example\r\nContent-Length: 9\r\n", method=b"POST"), 403, "cross_origin"),
            (get(b"Origin: http://a\r\nOrigin: http://localhost\r\n", method=b"POST"), 403, "cross_origin"),
        ],
    )
    def test_other_hosts_and_origins(self, api: ApiProcess, request_bytes: bytes, status: int, code: str) -> None:
        with api.connect() as connection:
            answer = connection.ask(request_bytes)  # before any of its body
        assert (answer.status, answer.document["code"]) == (status, code)
        assert "server" not in answer.headers

    def test_tls_is_called_by_its_name(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            assert "not HTTPS" in connection.ask(b"\x16\x03\x01\x00\xc8" + b"r" * 90).document["detail"]

    def test_to_head_without_a_body(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            connection.send(get(method=b"HEAD", target=b"/" + b"a" * 5_000))
            connection.socket.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.socket.recv(4096), b""))
        assert received.startswith(b"HTTP/1.1 414 ")
        assert received.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize(
        "beginning",
        [
            FORM + b"Content-Length: 3000\r\n\r\n--b\r\n",
            FORM + CHUNKED + b"50\r\n--b\r\n",
            FORM + CHUNKED,
            b"POST /inference_service_controller" + JSON + b"Content-Length: 9\r\n\r\n{",
        ],
    )
    def test_a_client_that_goes_away_within_the_body(self, api: ApiProcess, beginning: bytes) -> None:
        with api.connect() as connection:
            connection.send(beginning)
            connection.socket.shutdown(socket.SHUT_WR)
            answer = connection.answer()
            assert (answer.status, answer.document["code"]) == (400, "invalid_request")
            assert answer.document["detail"].startswith("the request body ended before its ")
        with api.connect() as connection:
            connection.send(beginning)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset

    def test_a_client_that_goes_away_within_the_head(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            connection.send(b"GET /hea")
            connection.socket.shutdown(socket.SHUT_WR)
            assert connection.is_closed()


class TestLegitimateRequests:
    def test_one_after_the_other_and_both_at_once(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            assert [connection.ask(GET).status for _ in range(3)] == [200] * 3
        with api.connect() as connection:
            connection.send(GET + LAST_GET)
            received = b"".join(iter(lambda: connection.socket.recv(4096), b""))
        assert received.count(b"HTTP/1.1 200 OK") == 2

    def test_byte_by_byte(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in GET:
                connection.send(bytes((byte,)))
            assert connection.answer().status == 200

    def test_after_a_body_that_nobody_read(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            unread = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n" + b"a" * 300_000
            assert [connection.ask(unread).status, connection.ask(GET).status] == [404, 200]

    def test_expect_100_continue(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            connection.send(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert connection.socket.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert connection.ask(b"abc").status == 404

    def test_http_1_0_and_an_absolute_target(self, api: ApiProcess) -> None:
        with api.connect() as connection:
            assert connection.ask(b"GET /health/live HTTP/1.0\r\n\r\n").status == 200
            assert connection.is_closed()
        with api.connect() as connection:
            assert connection.ask(get(target=b"http://localhost/health/live")).status == 200
            assert connection.ask(get(target=b"http://localhost")).document["service"] == "image inference"
