"""Monitoring server of the worker and the relay, over real connections."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from support.client import wait_until

from inference.errors import ConfigurationError
from inference.runtime import monitoring_server
from inference.runtime.health import OK
from inference.runtime.monitoring_server import MonitoringServer, Page, health_pages


class Rig:
    """A server whose checks a test sets."""

    def __init__(self) -> None:
        self.live, self.ready = {"threads": OK}, {"process": OK}
        self.held = threading.Event()
        self.held.set()
        pages = {**health_pages(live=lambda: self.live, ready=lambda: self.ready), "/slow": self._slow, "/fault": self._fault}
        self.server = MonitoringServer("127.0.0.1", 0, pages, key="monitoring.worker_port")
        self.server.start()

    def _slow(self) -> Page:
        self.held.wait(60)
        return Page("text/plain", b"slow")

    def _fault(self) -> Page:
        raise KeyError("secret")

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def connect(self, sent: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        client.sendall(sent)
        return client


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.held.set()
    made.server.stop()


def test_the_probes_answer_200_or_503_with_their_checks(rig: Rig) -> None:
    status, body, headers = rig.ask("/health/live?verbose=1")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "no-store")
    assert json.loads(body) == {"status": "live", "checks": {"threads": "ok"}}
    rig.ready = {"models": OK, "process": "starting"}
    status, body, _ = rig.ask("/health/ready")
    assert (status, json.loads(body)) == (503, {"status": "not ready", "checks": {"models": "ok", "process": "starting"}})


def test_head_has_the_headers_of_get_and_no_body(rig: Rig) -> None:
    status, body, headers = rig.ask("/health/live", "HEAD")
    assert (status, body, int(headers["Content-Length"])) == (200, b"", len(rig.ask("/health/live")[1]))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONE"])
def test_other_methods_are_refused(rig: Rig, method: str) -> None:
    status, body, headers = rig.ask("/health/live", method)
    assert (status, headers["Allow"], json.loads(body)["status"]) == (405, "GET, HEAD", 405)


def test_a_path_that_is_not_there_names_those_that_are(rig: Rig) -> None:
    status, body, _ = rig.ask("/tasks")
    assert status == 404
    assert "/health/live, /health/ready" in json.loads(body)["detail"]


def test_a_page_that_fails_tells_nothing_of_its_cause_and_ends_nothing(rig: Rig) -> None:
    status, body, _ = rig.ask("/fault")
    assert status == 500
    assert b"secret" not in body
    assert rig.ask("/health/live")[0] == 200


@pytest.mark.parametrize(
    "sent", [b"\x00\xff\r\n\r\n", b'X "y" z w\r\n\r\n', b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000 + b"\r\n\r\n"]
)
def test_bytes_that_are_no_request_are_answered_with_an_error(rig: Rig, sent: bytes) -> None:
    with rig.connect(sent) as client:
        head, _, body = client.makefile("rb").read().rpartition(b"\r\n\r\n")
    assert json.loads(body)["status"] in {400, 414, 505}, head
    assert rig.ask("/health/live")[0] == 200


def test_a_client_that_sends_slowly_is_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring_server, "_MAX_CONNECTION_S", 0.2)  # the total time; the limit between two bytes stays 10 s
    with rig.connect(b"GET /health/live HTTP/1.1\r\nX-Slow: ") as client:
        assert client.recv(1) == b""


def test_too_many_connections_are_closed_and_probes_are_answered_afterwards(rig: Rig) -> None:
    rig.held.clear()
    clients = [rig.connect(b"GET /slow HTTP/1.0\r\n\r\n") for _ in range(monitoring_server._MAX_CONNECTIONS)]
    wait_until(lambda: len(rig.server._server._connections) == len(clients), timeout_s=60, what="all are served")
    with rig.connect() as further:
        assert further.recv(1) == b""
    rig.held.set()
    for client in clients:
        with client:
            assert client.makefile("rb").read().endswith(b"slow")
    wait_until(lambda: not rig.server._server._connections, timeout_s=60, what="all are closed")
    assert rig.ask("/health/live")[0] == 200


def test_a_port_that_is_taken_is_an_error_of_its_setting(rig: Rig) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"^monitoring\.relay_port: cannot listen on 127\.0\.0\.1:\d+: Address already in use; "
        r"give each process of a machine its own by INFERENCE_MONITORING__RELAY_PORT$",
    ) as e:
        MonitoringServer("127.0.0.1", rig.server.port, {}, key="monitoring.relay_port")
    assert e.value.field == "monitoring.relay_port"


def test_an_address_of_another_machine_is_an_error_of_its_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"^monitoring\.host: 192\.0\.2\.1 is not an address of this machine"):
        MonitoringServer("192.0.2.1", 0, {}, key="monitoring.relay_port")


def test_a_stopped_server_frees_its_port() -> None:
    server = MonitoringServer("127.0.0.1", 0, {}, key="monitoring.worker_port")
    server.start()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=60)
