"""Keys on a running service: plain HTTP, the client, the command line, revocation, and commands at an address of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from rohe_inference import NO_RETRIES, Client, Forbidden, Unauthenticated
from rohe_inference.cli.app import program
from rohe_inference.cli.exits import ExitCode
from support.client import free_port, wait_until
from support.keys import key_document, new_key
from support.service import ROOT, Service

from inference.access import Role
from inference.keys.entries import Key

pytestmark = pytest.mark.process

SEVEN = ROOT / "samples" / "digit_7.png"
#: Lines of a stream in which nothing happens: comments, every 15 seconds.
MAX_LINES = 20
#: Seconds within which a revoked key is refused, with much room for a busy machine.
PATIENCE_S = 60


@dataclass
class Keyed:
    """A service with a file of keys, and the keys' texts."""

    service: Service
    commands_url: str
    file: Path
    keys: dict[str, Key]
    predict: str
    read: str
    admin: str

    def write(self, *left_out: str) -> None:
        """Write the file with the keys, but for some."""
        keys = (key for name, key in self.keys.items() if name not in left_out)
        self.file.write_text(json.dumps(key_document(*keys)), encoding="utf-8")

    def get(self, path: str, text: str | None = None, **options: Any) -> requests.Response:
        return requests.get(f"{self.service.url}{path}", headers=bearer(text), timeout=60, **options)

    def client(self, text: str) -> Client:
        return Client(self.service.url, api_key=text, retries=NO_RETRIES)


def bearer(text: str | None) -> dict[str, str]:
    return {} if text is None else {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    made = {role.value: new_key(f"{role}-owner", role) for role in Role}
    commands = f"127.0.0.1:{free_port()}"
    settings = {
        "models": ["models/digits"],
        "api": {"shutdown_delay_s": 0, "workers": 2, "commands": commands},
        "security": {"keys_file": str(folder / "keys.json"), "audit_file": str(folder / "audit.jsonl")},
    }
    service = Service(folder, settings)
    texts = {name: text for name, (text, _) in made.items()}
    keys = {name: key for name, (_, key) in made.items()}
    found = Keyed(service, f"http://{commands}", folder / "keys.json", keys, **texts)
    found.write()
    try:
        service.start()
        yield found
    finally:
        service.end()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ROHE_INFERENCE_API_KEY", raising=False)
    monkeypatch.delenv("ROHE_INFERENCE_URL", raising=False)


def test_plain_requests(keyed: Keyed) -> None:
    wait_until(
        keyed.service.is_ready, timeout_s=30, what="the second API process, whose checks may be a second old, is ready too"
    )
    assert keyed.get("/tasks").headers["WWW-Authenticate"] == 'Bearer realm="inference"'
    assert keyed.get("/tasks", keyed.predict[:-1]).status_code == 401
    assert keyed.get("/status", keyed.predict).status_code == 403
    assert keyed.get("/status", keyed.read).status_code == 200
    refused = keyed.service.post(SEVEN)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    answer = keyed.service.post(SEVEN, headers=bearer(keyed.predict))
    assert answer.json()["response"]["class"] == 7
    assert keyed.service.post(SEVEN, headers={"X-API-Key": keyed.predict}).status_code == 200


def test_the_client(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    with keyed.client(keyed.predict) as client:
        assert client.predict(SEVEN).class_id == 7
        assert (client.key().owner, client.key().role) == ("predict-owner", "predict")
        with pytest.raises(Forbidden, match="needs a key with the role read or admin; this key has the role predict"):
            client.status()
        reference = client.upload(SEVEN)
        assert client.predict(reference).class_id == 7
    with keyed.client("rk_wrong") as client, pytest.raises(Unauthenticated, match="the key is not valid"):
        client.models()
    with Client(keyed.service.url, retries=NO_RETRIES) as client, pytest.raises(Unauthenticated, match="needs a key"):
        client.predict(SEVEN)
    monkeypatch.setenv("ROHE_INFERENCE_API_KEY", keyed.read)
    with Client(keyed.service.url, retries=NO_RETRIES) as client:
        wait_until(lambda: client.status().problems == [], timeout_s=PATIENCE_S, what="no problem")
        with pytest.raises(Forbidden, match="role predict or admin"):
            client.predict(SEVEN)


def call(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    """Run the command line in this process; gives its exit code and output."""
    result = CliRunner().invoke(program, arguments, input=stdin)
    return result.exit_code, result.output


def test_the_command_line(keyed: Keyed) -> None:
    code, output = call("login", "--url", keyed.service.url, "--api-key", "-", stdin=f"{keyed.predict}\n")
    assert (code, f"the key {keyed.predict[3:13]} belongs to predict-owner and has the role predict\n" in output) == (0, True)
    assert keyed.predict not in output
    assert call("predict", str(SEVEN), "--json")[0] == ExitCode.OK
    assert call("tasks")[0] == ExitCode.OK
    for arguments in (("status",), ("top", "--once"), ("top",)):
        code, output = call(*arguments)
        assert (code, "Traceback" in output) == (ExitCode.FORBIDDEN, False)
        assert "GET /status needs a key with the role read or admin; this key has the role predict" in output
    code, output = call("login", "--url", keyed.service.url, "--no-api-key")
    assert code == ExitCode.FORBIDDEN
    assert "this request needs a key; give a key with `rohe-inference login`" in output


def test_commands_are_taken_at_their_own_address_alone(keyed: Keyed) -> None:
    for path in ("/inference", "/inference_service_controller"):
        elsewhere = command(f"{keyed.service.url}{path}", keyed.admin)
        assert (elsewhere.status_code, elsewhere.json()["detail"]) == (403, "commands are not taken at this address")
        there = f"{keyed.commands_url}{path}"
        assert [command(there, text).status_code for text in (None, keyed.predict)] == [401, 403]
        done = command(there, keyed.admin)
        assert (done.status_code, done.json()["response"]["served_model"]) == (200, "digits")
    lines = [json.loads(line) for line in (keyed.file.parent / "audit.jsonl").read_text(encoding="ascii").splitlines()]
    commands = [(line["who"]["owner"], line["outcome"]) for line in lines if line["what"] == "command"]
    assert ("admin-owner", "done") in commands
    assert ("predict-owner", "forbidden") in commands
    assert not any(text in json.dumps(lines) for text in (keyed.predict, keyed.admin))


def command(url: str, text: str | None) -> requests.Response:
    return requests.post(url, data={"command": "load_new_model", "model_id": "digits"}, headers=bearer(text), timeout=90)


def test_revoked_key_in_the_file(keyed: Keyed) -> None:
    with keyed.get("/events", keyed.read, stream=True) as stream:
        assert stream.status_code == 200
        lines = stream.iter_lines()
        next(lines)
        keyed.write("read")
        try:
            for _ in islice(lines, MAX_LINES):
                pass
            assert next(lines, None) is None, "the stream goes on"
            wait_until(lambda: is_refused(keyed, keyed.read), timeout_s=PATIENCE_S, what="every process refuses the key")
            assert keyed.get("/tasks", keyed.predict).status_code == 200
        finally:
            keyed.write()
    wait_until(lambda: keyed.get("/key", keyed.read).status_code == 200, timeout_s=PATIENCE_S, what="the key is valid again")


def test_key_of_the_record_store(keyed: Keyed) -> None:
    text = server(keyed, "create", "--owner", "ada", "--role", "predict").splitlines()[-1]
    wait_until(lambda: is_accepted(keyed, text), timeout_s=PATIENCE_S, what="every process knows the new key")
    assert keyed.get("/key", text).json()["owner"] == "ada"
    server(keyed, "revoke", text[3:13])
    wait_until(lambda: is_refused(keyed, text), timeout_s=PATIENCE_S, what="every process refuses the key")


def is_accepted(keyed: Keyed, text: str) -> bool:
    """Whether each of several requests, which go to all processes, is accepted."""
    return all(keyed.get("/key", text).status_code == 200 for _ in range(6))


def is_refused(keyed: Keyed, text: str) -> bool:
    """Whether each of several requests, which go to all processes, is refused; 429 after many of them."""
    return all(keyed.get("/key", text).status_code in {401, 429} for _ in range(6))


def server(keyed: Keyed, *arguments: str) -> str:
    """Run a subcommand of `server.py keys`; gives its output."""
    command = (sys.executable, "server.py", "keys", *arguments, "--config", str(keyed.service.config))
    done = subprocess.run(command, cwd=ROOT, env=keyed.service.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
