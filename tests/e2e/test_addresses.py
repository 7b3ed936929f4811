"""The API on IPv6, on names, and behind a proxy with a path prefix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.api_process import ApiProcess, get

pytestmark = pytest.mark.process

MakeApi = Callable[..., ApiProcess]


class TestAddresses:
    @pytest.mark.parametrize(
        ("host", "reached_at"), [("::1", "::1"), ("[::1]", "::1"), ("::", "127.0.0.1"), ("localhost", "127.0.0.1")]
    )
    def test_it_listens_there(self, tmp_path: Path, redis_url: str, host: str, reached_at: str) -> None:
        api = ApiProcess(tmp_path, redis_url, host=host, trusted_proxies=[reached_at])
        api.host = reached_at
        try:
            with api.wait().connect() as connection:
                forwarded = get(b"X-Forwarded-Prefix: /ml\r\n", target=b"/ml/tasks/unknown")
                assert connection.ask(forwarded).document["code"] == "task_not_found"
        finally:
            api.end()


class TestProxies:
    @pytest.fixture
    def location(self, make_api: MakeApi) -> Callable[..., Callable[[bytes], str]]:
        def make(*proxies: str) -> Callable[[bytes], str]:
            api = make_api(trusted_proxies=list(proxies))

            def location(head: bytes, target: bytes = b"/tasks/unknown") -> str:
                with api.connect() as connection:
                    answer = connection.ask(get(head, target=target))
                    assert answer.document["code"] in ("task_not_found", "not_found"), answer.body
                    return answer.headers.get("location", answer.document["code"])

            return location

        return make

    @pytest.mark.parametrize("name", [b"X-Forwarded-Prefix", b"SCRIPT_NAME", b"script_name"])
    def test_the_prefix_of_a_trusted_proxy(self, location: Any, name: bytes) -> None:
        of = location("127.0.0.1")
        assert of(name + b": /ml\r\n") == "/ml/tasks/unknown"
        assert of(name + b": /ml\r\n", b"/ml/tasks/unknown") == "/ml/tasks/unknown"
        assert of(b"X-Forwarded-Proto: https\r\n") == "/tasks/unknown"

    def test_a_strangers_headers_change_nothing(self, location: Any) -> None:
        of = location("10.0.0.5")
        names = (b"X-Forwarded-Prefix", b"SCRIPT_NAME", b"Script-Name", b"PATH_INFO", b"X_Forwarded_Prefix")
        assert {of(name + b": /ml\r\n") for name in names} == {"/tasks/unknown"}
        assert {of(name + b": /ml\r\n", b"/ml/tasks/unknown") for name in names} == {"not_found"}

    def test_the_environment_of_the_process_sets_no_prefix(self, location: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCRIPT_NAME", "/ml")
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
        of = location()
        assert of(b"SCRIPT_NAME: /ml\r\n") == "/tasks/unknown"
