"""Allowed hosts and origins, CORS, and the headers of every answer."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import redis
from api_rig import LISTS, assert_problem, post, raw_form
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.security.host_check import HostCheck
from inference.settings import ApiSettings

PAGE = "https://page.example"
#: Headers of a browser's request from a page of another site.
FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": PAGE},
    {"Sec-Fetch-Site": "anything"},
    {"Sec-Fetch-Site": "same-origin,cross-site"},
    {"Origin": PAGE},
    {"Origin": "null"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "http://localhost.page.example"},
    {"Origin": "localhost"},
    {"Origin": "http://"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost"},
    {"Origin": "https://localhost"},
    {"Origin": "http://LOCALHOST:80"},
    {"Host": "localhost:30005", "Origin": "http://localhost:30005"},
    {"Host": "[::1]:30005", "Origin": "http://[::1]:30005"},
]
CHANGING = [
    "POST /inference",
    "POST /inference_service",
    "POST /inference/batch",
    "POST /inference_service_controller",
    "POST /inference?command=change_ensemble_mode&ensemble_mode=true",
    "DELETE /tasks/0123456789abcdef0123456789abcdef",
    "DELETE /batches/0123456789abcdef0123456789abcdef",
    "DELETE /tasks/x",
    "POST /nothing",
    "PUT /inference",
    "PATCH /",
    "BREW /",
]
COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def assert_common_headers(response: TestResponse) -> None:
    assert {name: response.headers.getlist(name) for name in COMMON} == {name: [value] for name, value in COMMON.items()}
    assert len(response.headers.getlist("X-Request-ID")) == 1


class TestPagesOfOtherOrigins:
    @pytest.mark.parametrize("headers", FOREIGN, ids=str)
    @pytest.mark.parametrize("request_line", CHANGING)
    def test_change_nothing(
        self, client: FlaskClient, redis_client: redis.Redis, key_prefix: str, request_line: str, headers: dict[str, str]
    ) -> None:
        method, path = request_line.split()
        before = set(redis_client.scan_iter(f"*{key_prefix}*", count=1000))
        response = client.open(path, method=method, headers=headers, data=raw_form())
        problem = assert_problem(response, 403, "cross_origin", field="Origin" if "Origin" in headers else "Sec-Fetch-Site")
        assert "api.cors_origins" in problem["expected"]
        assert_common_headers(response)
        assert "Access-Control-Allow-Origin" not in response.headers
        assert set(redis_client.scan_iter(f"*{key_prefix}*", count=1000)) == before
        assert sum(redis_client.llen(key) for key in LISTS) == 0

    @pytest.mark.parametrize("headers", FOREIGN, ids=str)
    def test_may_read_what_their_browser_keeps_from_them(self, client: FlaskClient, headers: dict[str, str]) -> None:
        for method in ("GET", "HEAD", "OPTIONS"):
            response = client.open("/inference", method=method, headers=headers)
            assert response.status_code == 200
            assert "Access-Control-Allow-Origin" not in response.headers

    @pytest.mark.parametrize("headers", OWN, ids=str)
    def test_pages_of_our_own_and_programs_are_served(self, client: FlaskClient, headers: dict[str, str]) -> None:
        assert post(client, headers=headers | {"Prefer": "respond-async"}).status_code == 202

    def test_the_body_is_not_read(self, client: FlaskClient) -> None:
        class Unread:
            def read(self, *_: int) -> bytes:
                raise AssertionError("the body was read")

        response = client.post(
            "/inference", headers={"Origin": PAGE}, environ_overrides={"wsgi.input": Unread(), "CONTENT_LENGTH": "5"}
        )
        assert response.status_code == 403

    def test_a_head_of_a_refused_host_has_no_body(self, client: FlaskClient) -> None:
        response = client.head("/", headers={"Host": "evil.example"})
        assert (response.status_code, response.data) == (421, b"")

    def test_behind_a_trusted_proxy_its_host_counts(self, make_app: Any) -> None:
        client = make_app(api={"trusted_proxies": ["10.0.0.5"], "allowed_hosts": ["api.example.org"]}).test_client()
        client.environ_base |= {"REMOTE_ADDR": "10.0.0.5"}
        forwarded = {"X-Forwarded-Host": "api.example.org", "Host": "10.0.0.7:30005", "Prefer": "respond-async"}
        assert post(client, headers=forwarded | {"Origin": "https://api.example.org"}).status_code == 202
        assert_problem(post(client, headers=forwarded | {"Origin": "http://10.0.0.7:30005"}), 403, "cross_origin")
        elsewhere = forwarded | {"X-Forwarded-Host": "evil.example", "Origin": "http://evil.example"}
        assert_problem(post(client, headers=elsewhere), 421, "misdirected_request")
        client.environ_base |= {"REMOTE_ADDR": "10.0.0.6"}
        assert_problem(post(client, headers=forwarded | {"Host": "evil.example"}), 421, "misdirected_request")


def error_code(sent: str | None, /, *, protocol: str = "HTTP/1.1", uri: str = "/", **api: Any) -> str | None:
    environ = {"SERVER_PROTOCOL": protocol, "RAW_URI": uri} | ({} if sent is None else {"HTTP_HOST": sent})
    error = HostCheck(ApiSettings(**api)).error(environ)
    return None if error is None else error.code


class TestHosts:
    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "localhost:30005",
            "LocalHost.",
            "api.localhost:1",
            "127.0.0.1",
            "127.0.0.1:30005",
            "127.5.5.5",
            "[::1]",
            "[::1]:30005",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "localhost:",
        ],
    )
    @pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::"])  # noqa: S104 not bound
    def test_loopback_names_are_served(self, bound: str, host: str) -> None:
        assert error_code(host, host=bound) is None

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:30005",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost",
            "192.0.2.7.evil.example",
            "gateway.docker.internal",
            "host.docker.internal.evil.example",
            "",
            "xn--lcalhost-n4a",
            "2130706433",
            socket.gethostname(),
        ],
    )
    def test_others_are_not(self, host: str) -> None:
        assert error_code(host) == "misdirected_request"

    @pytest.mark.parametrize(
        "host",
        [
            "user@localhost",
            "localhost/x",
            "localhost:x",
            "localhost:123456",
            "local host",
            "[::1",
            "::1",
            "localhost#",
            "localhost\\x",
            "l\xf6calhost",
            "[localhost]",
            "[abc]",
            "[192.0.2.7]",
            "[fe80::1%]",
            "[fe80::1%eth0/x]",
            "fe80::1%eth0",
        ],
    )
    def test_what_is_no_host_is_400(self, host: str) -> None:
        assert error_code(host) == "invalid_request"
        assert error_code(host, host="::") == "invalid_request"

    @pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "10.0.0.5", "2001:db8::7", "0.0.0.0", "::"])  # noqa: S104
    def test_an_address_cannot_be_rebound(self, bound: str) -> None:
        for host in ("192.0.2.7:30005", "8.8.8.8", "10.1.2.3", "0.0.0.0:30005", "[2001:db8::5]", "[::ffff:10.0.0.5]:1"):
            assert error_code(host, host=bound) is None, host
        for host in ("[fe80::1]", "[fe80::1%eth0]", "[fe80::1%25eth0]:30005"):
            assert error_code(host, host=bound) is None, host
        for host in (
            "evil.example",
            "10.1.2.3.evil.example",
            "local.evil.example",
            "evil.test",
            "api.default",
            "svc.example",
            "",
        ):
            assert error_code(host, host=bound) == "misdirected_request", host

    @pytest.mark.parametrize("bound", ["0.0.0.0", "192.0.2.7"])  # noqa: S104
    def test_where_other_machines_reach_it_so_are_names_that_no_public_dns_has(self, bound: str) -> None:
        for host in (
            socket.gethostname(),
            "api:30005",
            "GPU-1.local.",
            "inference.default.svc.cluster.local",
            "inference.default.svc:30005",
            "metadata.internal",
        ):
            assert error_code(host, host=bound) is None, host
            assert error_code(host) == "misdirected_request", host

    @pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
    def test_containers_reach_their_machine(self, bound: str) -> None:
        assert error_code("Host.docker.internal:30005", host=bound) is None

    def test_the_name_that_is_listened_on(self) -> None:
        assert error_code("gpu-1.example.org", host="gpu-1.example.org") is None

    def test_a_list_comes_in_addition(self) -> None:
        entries = ("api", "Inference.Example.org", "*.example.net", ".example.com", "grün.example", "[2001:db8::1]")
        for host in ("api:30005", "inference.example.org.", "a.b.example.net", "example.com", "a.example.com", "localhost"):
            assert error_code(host, allowed_hosts=entries) is None, host
        for host in ("xn--grn-ioa.example", "[2001:db8:0::1]:1", "127.0.0.1"):
            assert error_code(host, allowed_hosts=entries) is None, host
        for host in ("example.net", "evilexample.net", "evilexample.com", "api.example.org", "apis"):
            assert error_code(host, allowed_hosts=entries) == "misdirected_request", host

    def test_any(self) -> None:
        assert error_code("evil.example", allowed_hosts=("*",)) is None

    def test_a_request_without_a_host(self) -> None:
        assert error_code(None, protocol="HTTP/1.0") is None
        assert error_code(None) == "invalid_request"

    def test_the_host_of_an_absolute_target_counts_too(self) -> None:
        assert error_code("localhost", uri="http://localhost:30005/") is None
        for uri in ("http://evil.example/", "HTTP://evil.example", "https://evil.example?x"):
            assert error_code("localhost", uri=uri) == "misdirected_request"
        assert error_code("evil.example", uri="http://localhost/") == "misdirected_request"
        assert error_code("localhost", uri="http://user@localhost/") == "invalid_request"
        assert error_code("localhost", uri="*") is None

    @pytest.mark.parametrize("host", ["192.0.2.7:30005", "[2001:db8::5]:30005", "[fe80::1%25eth0]:30005", "[fe80::1%eth0]"])
    def test_an_address_is_answered(self, client: FlaskClient, host: str) -> None:
        assert client.get("/", headers={"Host": host}).status_code == 200
        assert post(client, headers={"Host": host, "Origin": f"http://{host}", "Prefer": "respond-async"}).status_code == 202

    @pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/tasks/x", "/nothing"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
    def test_every_route_checks_it(self, client: FlaskClient, method: str, path: str) -> None:
        response = client.open(path, method=method, headers={"Host": "evil.example"})
        if method == "HEAD":
            assert response.status_code == 421
        else:
            assert_problem(response, 421, "misdirected_request", field="Host")
        assert_common_headers(response)

    @pytest.mark.parametrize("entry", ["localhost:30005", "http://localhost", "a b", "*.10.0.0.1x!", "", "**", "*.*", "*.[::1]"])
    def test_an_entry_that_is_no_host_is_an_error(self, entry: str) -> None:
        with pytest.raises(ValueError, match="must be a host name or an address without a port"):
            ApiSettings(allowed_hosts=(entry,))


class TestCors:
    @pytest.fixture
    def client(self, make_app: Any) -> FlaskClient:
        client: FlaskClient = make_app(api={"cors_origins": ["https://Page.example:443/", "http://127.0.0.1:8000"]}).test_client()
        return client

    @pytest.mark.parametrize("origin", [PAGE, "http://127.0.0.1:8000"])
    def test_a_page_of_a_listed_origin_is_served_and_may_read(self, client: FlaskClient, origin: str) -> None:
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Prefer": "respond-async"}
        response = post(client, headers=headers)
        assert response.status_code == 202
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert response.headers["Vary"] == "Origin"
        assert {"Location", "RateLimit", "Retry-After", "Task-Id"} <= set(
            response.headers["Access-Control-Expose-Headers"].split(", ")
        )
        assert "Access-Control-Allow-Credentials" not in response.headers

    @pytest.mark.parametrize(
        ("method", "path", "data", "status"),
        [("GET", "/tasks/x", None, 404), ("POST", "/inference", {"command": "x"}, 400), ("PUT", "/", None, 405)],
    )
    def test_it_may_read_errors_too(self, client: FlaskClient, method: str, path: str, data: Any, status: int) -> None:
        response = client.open(path, method=method, data=data, headers={"Origin": PAGE})
        assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (status, PAGE)

    @pytest.mark.parametrize("path", ["/inference", "/tasks/x", "/nothing"])
    def test_a_preflight(self, client: FlaskClient, path: str) -> None:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "prefer"}
        response = client.options(path, headers=asked)
        assert (response.status_code, response.data) == (204, b"")
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert {"GET", "POST", "DELETE"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
        allowed = set(response.headers["Access-Control-Allow-Headers"].lower().split(", "))
        assert {"content-type", "prefer", "idempotency-key", "authorization"} <= allowed
        assert response.headers["Vary"] == "Origin"

    @pytest.mark.parametrize(
        "origin", ["https://page.example:444", "http://page.example", "https://page.example.evil.example", "null", "", "*"]
    )
    def test_any_other_origin_gets_nothing(self, client: FlaskClient, origin: str) -> None:
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Access-Control-Request-Method": "POST"}
        for response in (client.options("/inference", headers=headers), client.get("/", headers=headers)):
            assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
            assert response.headers["Vary"] == "Origin"
        assert_problem(post(client, headers=headers), 403, "cross_origin")

    def test_any(self, make_app: Any) -> None:
        client = make_app(api={"cors_origins": ["*"]}).test_client()
        response = post(client, headers={"Origin": "null", "Sec-Fetch-Site": "cross-site", "Prefer": "respond-async"})
        assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (202, "*")

    @pytest.mark.parametrize(
        "entry", ["page.example", "https://page.example/path", "null", "https://", "https://a b", "https://*.x"]
    )
    def test_an_entry_that_is_no_origin_is_an_error(self, entry: str) -> None:
        with pytest.raises(ValueError, match=r"must be an origin|is not a host name"):
            ApiSettings(cors_origins=(entry,))


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("HEAD", "/"),
            ("OPTIONS", "/inference"),
            ("GET", "/health/live"),
            ("GET", "/health/ready"),
            ("GET", "/tasks/unknown"),
            ("GET", "/tasks?request_id=x"),
            ("GET", "/tasks?nothing=x"),
            ("GET", "/nothing"),
            ("PUT", "/"),
            ("POST", "/inference"),
        ],
    )
    def test_are_on_every_answer_once(self, client: FlaskClient, method: str, path: str) -> None:
        response = client.open(path, method=method)
        assert_common_headers(response)
        assert "Strict-Transport-Security" not in response.headers

    def test_hsts_where_a_trusted_proxy_has_https(self, make_app: Any) -> None:
        client = make_app(api={"trusted_proxies": ["10.0.0.5"]}).test_client()
        forwarded = {"X-Forwarded-Proto": "https"}
        for peer, is_there in (("10.0.0.5", True), ("10.0.0.6", False)):
            response = client.get("/health/live", headers=forwarded, environ_overrides={"REMOTE_ADDR": peer})
            assert ("Strict-Transport-Security" in response.headers) is is_there

    @pytest.mark.parametrize(("sent", "is_kept"), [("4bf92f35-7", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
    def test_a_request_has_the_id_that_its_client_gave_it(self, client: FlaskClient, sent: str, is_kept: bool) -> None:
        answered = client.get("/health/live", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
        assert (answered == sent) is is_kept
        assert len(answered) == 32 or is_kept
