"""Behind a reverse proxy: which headers count, from whom, and that every URL in an answer begins with the prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api_rig import post_batch, raw_form
from flask.testing import FlaskClient
from werkzeug.routing import Map, Rule
from werkzeug.test import TestResponse

from api.security.proxies import TrustedProxies
from inference.errors import ConfigurationError
from inference.settings import Settings, load_settings

PROXY, STRANGER = "10.0.0.5", "192.0.2.9"
Environ = dict[str, Any]


class TestEveryUrlInAnAnswer:
    """Over every route that gives a Location or urls."""

    @pytest.fixture
    def make_client(self, make_app: Any) -> Callable[..., FlaskClient]:
        def make(peer: str, headers: dict[str, str], *proxies: str) -> FlaskClient:
            client: FlaskClient = make_app(api={"trusted_proxies": proxies}).test_client()
            client.environ_base |= {"REMOTE_ADDR": peer} | {f"HTTP_{name}": value for name, value in headers.items()}
            return client

        return make

    def urls(self, client: FlaskClient, path: str) -> list[str]:
        """The URLs of every answer; `path` comes before the paths of the requests."""
        task = client.post(f"{path}/inference", data=raw_form(request_id="r"), headers={"Prefer": "respond-async"})
        assert task.status_code == 202, task.data
        task_path = f"{path}/tasks/{task.json['task_id']}"
        prefixed = PrefixedClient(client, path)
        batch = post_batch(prefixed, [1, 2], headers={"Prefer": "respond-async"})  # type: ignore[arg-type]
        assert batch.status_code == 202, batch.data
        batch_path = f"{path}/batches/{batch.json['batch_id']}"
        index = client.get(f"{path}/")
        again = {"data": raw_form(3), "headers": {"Prefer": "respond-async", "Idempotency-Key": "k"}}
        answers = [
            task,
            batch,
            client.post(f"{path}/inference_service", **again),
            client.get(task_path),
            client.get(f"{path}/tasks?request_id=r"),
            client.delete(task_path),
            client.delete(task_path),  # 409, a problem with its Location
            client.get(batch_path),
            client.delete(batch_path),
            client.delete(batch_path),  # 409
            client.get(f"{path}/tasks/unknown"),
            client.get(f"{path}/batches/unknown"),
        ]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 200, 200, 200, 409, 200, 200, 409, 404, 404]
        found = [url for answer in answers for url in self._of(answer)]
        return found + [part.strip(" ,").removesuffix(",") for key in index.json["paths"] for part in key.split()[1:]]

    def _of(self, answer: TestResponse) -> Iterator[str]:
        if "Location" in answer.headers:
            yield answer.headers["Location"]
        documents = answer.json.get("tasks", [answer.json])
        for document in documents:
            yield from document.get("urls", {}).values()

    @pytest.mark.parametrize("passes_whole_paths", [True, False])
    @pytest.mark.parametrize("header", ["X_FORWARDED_PREFIX", "SCRIPT_NAME"])
    def test_begins_with_the_prefix_of_a_trusted_proxy(
        self, make_client: Callable[..., FlaskClient], header: str, passes_whole_paths: bool
    ) -> None:
        urls = self.urls(make_client(PROXY, {header: "/ml/v1"}, "10.0.0.0/8"), "/ml/v1" if passes_whole_paths else "")
        assert len(urls) > 20
        assert [url for url in urls if not url.startswith(("/ml/v1/tasks", "/ml/v1/batches", "/ml/v1/"))] == []

    @pytest.mark.parametrize(
        ("peer", "headers", "proxies"),
        [
            (PROXY, {}, ["10.0.0.0/8"]),
            (STRANGER, {"X_FORWARDED_PREFIX": "/ml"}, ["10.0.0.0/8"]),
            (STRANGER, {"SCRIPT_NAME": "/ml"}, ["10.0.0.0/8"]),
            ("127.0.0.1", {"X_FORWARDED_PREFIX": "/ml", "SCRIPT_NAME": "/ml"}, []),
            (PROXY, {"X_FORWARDED_PREFIX": "//evil.example"}, ["10.0.0.0/8"]),
        ],
    )
    def test_has_no_prefix_otherwise(
        self, make_client: Callable[..., FlaskClient], peer: str, headers: dict[str, str], proxies: list[str]
    ) -> None:
        urls = self.urls(make_client(peer, headers, *proxies), "")
        assert [url for url in urls if "/ml" in url or "evil" in url] == []
        assert any(url.startswith("/tasks/") for url in urls)

    def test_a_whole_path_is_unknown_without_a_trusted_proxy(self, make_client: Callable[..., FlaskClient]) -> None:
        client = make_client(STRANGER, {"X_FORWARDED_PREFIX": "/ml"}, "10.0.0.0/8")
        assert client.get("/ml/health/live").status_code == 404

    def test_an_unknown_path_is_told_where_the_index_is(self, make_client: Callable[..., FlaskClient]) -> None:
        client = make_client(PROXY, {"X_FORWARDED_PREFIX": "/ml"}, "10.0.0.0/8")
        assert client.get("/ml/nothing").json["expected"] == "see GET /ml/ for the paths"

    def test_an_id_reaches_a_header_percent_encoded(self, make_client: Callable[..., FlaskClient]) -> None:
        answer = make_client(STRANGER, {}).get("/tasks/%0d%0ax")
        assert answer.status_code == 404
        assert "\n" not in answer.headers.get("Location", "")


@dataclass
class PrefixedClient:
    client: FlaskClient
    prefix: str

    def post(self, path: str, **options: Any) -> TestResponse:
        return self.client.post(f"{self.prefix}{path}", **options)


ROUTES = Map(
    [
        Rule("/", endpoint="index"),
        Rule("/inference", endpoint="predict", methods=["POST"]),
        Rule("/tasks/<id>", endpoint="task", methods=["GET"]),
    ]
)


def seen(
    headers: dict[str, str], *, peer: str = PROXY, path: str = "/tasks/x", method: str = "GET", proxies: Any = ("10.0.0.0/8",)
) -> Environ:
    """The environment that the application gets."""
    environ = {"REMOTE_ADDR": peer, "PATH_INFO": path, "REQUEST_METHOD": method, "wsgi.url_scheme": "http", "HTTP_HOST": "inner"}
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    got: list[Environ] = []

    def application(environ: Environ, _start: Any) -> list[bytes]:
        got.append(environ)
        return []

    TrustedProxies(application, proxies, ROUTES)(environ, None)
    return got[0]


FORWARDED = {
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "api.example.org",
    "X-Forwarded-Prefix": "/ml",
}


class TestWhoIsTrusted:
    @pytest.mark.parametrize(
        ("proxies", "peer"),
        [
            (["10.0.0.5"], "10.0.0.5"),
            (["10.0.0.0/8"], "10.255.0.1"),
            (["10.0.0.0/8"], "::ffff:10.0.0.5"),
            (["::ffff:10.0.0.5"], "10.0.0.5"),
            (["::ffff:10.0.0.0/104"], "10.9.9.9"),
            (["::1"], "::1"),
            (["fd00::/8"], "fd12::1"),
            (["fe80::/10"], "fe80::1%eth0"),
            (["192.0.2.1", "10.0.0.9/8"], "10.0.0.5"),
        ],
    )
    def test_a_peer_in_the_list(self, proxies: list[str], peer: str) -> None:
        environ = seen(FORWARDED, peer=peer, proxies=Settings(api={"trusted_proxies": proxies}).api.trusted_proxies)
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("198.51.100.7", "https")
        assert (environ["HTTP_HOST"], environ["SCRIPT_NAME"]) == ("api.example.org", "/ml")

    @pytest.mark.parametrize("peer", ["192.0.2.9", "11.0.0.5", "::1", "", "unix", "::ffff:192.0.2.9"])
    def test_nobody_else(self, peer: str) -> None:
        environ = seen(FORWARDED, peer=peer, path="/ml/tasks/x")
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == (peer, "http", "inner")
        assert (environ.get("SCRIPT_NAME", ""), environ["PATH_INFO"]) == ("", "/ml/tasks/x")

    @pytest.mark.parametrize("entry", ["*", "localhost", "10.0.0.0/33", "10.0.0", "http://10.0.0.1", ""])
    def test_what_is_no_address_is_told_by_key(self, entry: str) -> None:
        with pytest.raises(ConfigurationError, match=r"^api\.trusted_proxies\.0: must be an address or a network, such as"):
            load_settings(None, {"api": {"trusted_proxies": [entry]}})


class TestPrefixes:
    @pytest.mark.parametrize(
        ("value", "prefix"),
        [
            ("/ml", "/ml"),
            ("/ml/", "/ml"),
            ("/a/b.c-d_e~f", "/a/b.c-d_e~f"),
            ("/outer, /ml", "/ml"),
            ("/a%20b", "/a b"),
            ("/%C3%A4", "/ä".encode().decode("latin-1")),
        ],
    )
    def test_a_path_is_one(self, value: str, prefix: str) -> None:
        assert seen({"X-Forwarded-Prefix": value})["SCRIPT_NAME"] == prefix

    @pytest.mark.parametrize(
        "value",
        [
            "", "/", "//", "ml", "//evil.example", "/ml//x", "/ml//", "http://evil.example", "https:/x",
            "/\\evil.example", "/%2Fevil.example", "/%5Cevil", "/a%0d%0ab", "/a\r\nb", "/a b", "/a?b", "/a#b",
            "/..", "/a/../b", "/.", "/%2e%2e", "/a%zz", "/ä", "/" + "a" * 256,
        ],
    )  # fmt: skip
    def test_anything_else_changes_nothing(self, value: str) -> None:
        environ = seen({"X-Forwarded-Prefix": value})
        assert (environ.get("SCRIPT_NAME", ""), environ["PATH_INFO"]) == ("", "/tasks/x")

    def test_the_proxys_prefix_counts_before_a_script_name_that_it_passes_on(self) -> None:
        assert seen({"X-Forwarded-Prefix": "/ml", "Script-Name": "/evil"})["SCRIPT_NAME"] == "/ml"

    @pytest.mark.parametrize(
        ("prefix", "method", "path", "inner"),
        [
            ("/ml", "GET", "/ml/tasks/x", "/tasks/x"),
            ("/ml", "GET", "/tasks/x", "/tasks/x"),
            ("/ml", "GET", "/ml", "/"),
            ("/ml", "GET", "/ml/", "/"),
            ("/ml", "GET", "/mlx/tasks/x", "/mlx/tasks/x"),
            ("/inference", "POST", "/inference", "/inference"),  # stripped, or else it would be the index
            ("/inference", "POST", "/inference/inference", "/inference"),
            ("/tasks", "POST", "/tasks/inference", "/inference"),
            ("/tasks", "GET", "/tasks/x", "/tasks/x"),
            ("/tasks", "GET", "/tasks/tasks/x", "/tasks/x"),
        ],
    )
    def test_a_proxy_may_strip_it_or_pass_the_whole_path(self, prefix: str, method: str, path: str, inner: str) -> None:
        assert seen({"X-Forwarded-Prefix": prefix}, path=path, method=method)["PATH_INFO"] == inner


class TestTheOtherHeaders:
    @pytest.mark.parametrize(
        ("value", "client"),
        [
            ("198.51.100.7", "198.51.100.7"),
            ("6.6.6.6, 198.51.100.7", "198.51.100.7"),
            ("6.6.6.6, 198.51.100.7, 10.1.1.1", "198.51.100.7"),
            ("10.1.1.1", "10.1.1.1"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("", PROXY),
            ("unknown", PROXY),
            ("6.6.6.6, nonsense", PROXY),
        ],
    )
    def test_the_client_is_the_nearest_that_is_no_proxy(self, value: str, client: str) -> None:
        assert seen({"X-Forwarded-For": value})["REMOTE_ADDR"] == client

    @pytest.mark.parametrize(
        ("value", "scheme"), [("https", "https"), ("HTTPS", "https"), ("http, https", "https"), ("gopher", "http"), ("", "http")]
    )
    def test_the_scheme(self, value: str, scheme: str) -> None:
        assert seen({"X-Forwarded-Proto": value})["wsgi.url_scheme"] == scheme

    @pytest.mark.parametrize(
        ("value", "host"),
        [
            ("api.example.org", "api.example.org"),
            ("evil, api.example.org:8443", "api.example.org:8443"),
            ("[::1]:80", "[::1]:80"),
            ("a/b", "inner"),
            ("a b", "inner"),
            ("user@a", "inner"),
            ("", "inner"),
        ],
    )
    def test_the_host(self, value: str, host: str) -> None:
        assert seen({"X-Forwarded-Host": value})["HTTP_HOST"] == host
