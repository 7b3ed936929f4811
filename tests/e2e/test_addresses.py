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
        others = {"security": {"anonymous": True}}
        api = ApiProcess(tmp_path, redis_url, host=host, trusted_proxies=[reached_at], others=others)
        api.host = reached_at
        try:
            with api.wait().connect() as connection:
                forwarded = get(b"X-Forwarded-Prefix: /ml\r\n", target=b"/ml/tasks/unknown")
                assert connection.ask(forwarded).document["code"] == "task_not_found"
            assert api.log.count("OPEN TO OTHER MACHINES at http://") == (host == "::")
        finally:
            api.end()


class TestProxies:
    @pytest.fixture
    def root(self, make_api: MakeApi) -> Callable[..., Callable[..., str]]:
        """The path of the service as an answer names it."""

        def make(*proxies: str) -> Callable[..., str]:
            api = make_api(trusted_proxies=list(proxies))

            def root(head: bytes, target: bytes = b"/nothing") -> str:
                with api.connect() as connection:
                    document = connection.ask(get(head, target=target)).document
                    assert document["code"] == "not_found"
                    return str(document["expected"]).removeprefix("see GET ").removesuffix(" for the paths")

            return root

        return make

    @pytest.mark.parametrize("name", [b"X-Forwarded-Prefix", b"SCRIPT_NAME", b"script_name"])
    def test_the_prefix_of_a_trusted_proxy(self, root: Any, name: bytes) -> None:
        of = root("127.0.0.1")
        assert of(name + b": /ml\r\n") == "/ml/"
        assert of(name + b": /ml\r\n", b"/ml/nothing") == "/ml/"
        assert of(b"X-Forwarded-Proto: https\r\n") == "/"

    def test_a_strangers_headers_change_nothing(self, root: Any) -> None:
        of = root("10.0.0.5")
        names = (b"X-Forwarded-Prefix", b"SCRIPT_NAME", b"Script-Name", b"PATH_INFO", b"X_Forwarded_Prefix")
        for target in (b"/nothing", b"/ml/tasks/unknown"):
            assert {of(name + b": /ml\r\n", target) for name in names} == {"/"}

    def test_the_environment_of_the_process_sets_no_prefix(self, root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCRIPT_NAME", "/ml")
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
        of = root()
        assert of(b"SCRIPT_NAME: /ml\r\n") == "/"
