"""Help, usage errors, exit codes without a service, and docs/command-line.md."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from rohe_inference.cli.app import program
from rohe_inference.cli.exits import ExitCode
from rohe_inference.cli.help import ExampleCommand
from rohe_inference.cli.reference import option_tables
from support.receiver import QuietServer

COMMANDS = sorted(program.commands)


def invoke(*arguments: str, stdin: str | bytes | None = None) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(program, arguments, input=stdin)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ROHE_INFERENCE_URL", raising=False)
    monkeypatch.delenv("ROHE_INFERENCE_API_KEY", raising=False)


class Answers(BaseHTTPRequestHandler):
    """Answers every request with the status and body that the test set."""

    status, body, content_type = 500, b"", "application/problem+json"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass


@pytest.fixture
def answers() -> Iterator[tuple[type[Answers], str]]:
    """A server whose answers a test sets, and its address."""
    handler = type("Handler", (Answers,), {})
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(name: str) -> None:
    command = program.commands[name]
    assert isinstance(command, ExampleCommand)

    result = invoke(name, "--help")

    assert result.exit_code == 0
    assert "Examples:" in result.output
    for line, _ in command.examples:
        assert line in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_have_options_that_exist(name: str) -> None:
    command = program.commands[name]
    assert isinstance(command, ExampleCommand)
    for line, _ in command.examples:
        for called, options in re.findall(r"rohe-inference ([a-z]+)([^|)]*)", line):
            known = {option for parameter in program.commands[called].params for option in parameter.opts}
            assert {word for word in options.split() if re.match(r"-{1,2}[a-z]", word)} <= known, line


def test_help_names_every_exit_code() -> None:
    output = invoke("--help").output

    assert {int(code) for code in re.findall(r"^\s+(\d+) ", output, re.MULTILINE)} | {141, 70} == {
        code.value for code in ExitCode
    }
    assert "141" in output
    assert "70 an error" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict"], "name one image at least"),
        (["predict", "missing.jpg"], "there is no file or folder 'missing.jpg'"),
        (["predict", "-", "a.jpg"], "- is the bytes of one image"),
        (["predict", "-"], "no bytes came from stdin"),
        (["predict", ".", "--json", "--csv"], "two formats"),
        (["predict", ".", "--shape", "3,3"], "--shape and --dtype belong together"),
        (["predict", ".", "--vector"], "--vector needs --json"),
        (["predict", ".", "--files-from", "list.txt"], "not both"),
        (["predict", "."], "no image in '.'"),
        (["predict", ".", "--priority", "10"], "0<=x<=9"),
        (["tasks", "--status", "done"], "the statuses are queued, running"),
        (["wait"], "Missing argument"),
        (["erase", "-"], "needs --yes"),
        (["models", "--url", "localhost:30005"], "is not the address of a service"),
        (["nothing"], "No such command"),
    ],
)
def test_wrong_commands_are_sentences(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = invoke(*arguments, stdin=b"1  a.jpg\n" if "erase" in arguments else b"")

    assert result.exit_code == ExitCode.USAGE
    assert sentence in result.stderr


@pytest.mark.parametrize(
    "arguments", [["models"], ["status"], ["predict", "-"], ["wait", "1"], ["events", "1"], ["login", "--no-api-key"]]
)
def test_service_that_does_not_answer_is_a_sentence(arguments: list[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

        result = invoke(*arguments, "--url", url, stdin=b"bytes")

    assert result.exit_code == ExitCode.UNREACHABLE
    assert f"no answer from {url}" in result.stderr
    assert "Is the service running?" in result.stderr


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "sentence"),
    [
        (401, "unauthenticated", ExitCode.FORBIDDEN, "rohe-inference login"),
        (403, "forbidden", ExitCode.FORBIDDEN, "a detail"),
        (404, "model_not_found", ExitCode.REFUSED, "a detail"),
        (429, "overloaded", ExitCode.REFUSED, "try again in 7 s"),
        (503, "service_unavailable", ExitCode.UNREACHABLE, "a detail"),
    ],
)
def test_exit_code_of_each_kind_of_problem(
    answers: tuple[type[Answers], str], status: int, code: str, exit_code: ExitCode, sentence: str
) -> None:
    handler, url = answers
    handler.status = status
    handler.body = b'{"status": %d, "code": "%s", "detail": "a detail", "retry_after_s": 7}' % (status, code.encode())

    result = invoke("models", "flowers", "--url", url)

    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert sentence in result.stderr


def test_answer_of_another_server_is_a_sentence(answers: tuple[type[Answers], str]) -> None:
    handler, url = answers
    handler.status, handler.body, handler.content_type = 200, b"<html>It works</html>", "text/html"

    result = invoke("models", "--url", url)

    assert result.exit_code == ExitCode.UNREACHABLE
    assert "Is the address that of the service?" in result.stderr


def test_error_of_the_program_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(program.commands["logout"], "callback", fail)

    result = invoke("logout")

    assert result.exit_code == ExitCode.INTERNAL
    assert "RuntimeError: a mistake" in result.stderr
    assert "Traceback" not in result.stderr


def test_login_that_fails_stores_nothing(tmp_path: Path, answers: tuple[type[Answers], str]) -> None:
    handler, url = answers
    handler.status, handler.body = 401, b'{"status": 401, "code": "unauthenticated", "detail": "the key is not known"}'

    result = invoke("login", "--url", url, "--api-key", "-", stdin="wrong\n")

    assert result.exit_code == ExitCode.FORBIDDEN
    assert not (tmp_path / "config").exists()


def test_key_is_sent_and_never_printed(answers: tuple[type[Answers], str], tmp_path: Path) -> None:
    handler, url = answers
    sent: list[str | None] = []

    def do_get(self: Answers) -> None:
        sent.append(self.headers["Authorization"])
        Answers.do_GET(self)

    handler.do_GET = do_get  # type: ignore[method-assign]
    key = {
        "owner": "ada",
        "role": "predict",
        "key_id": "aB3dE6gH9k",
        "limits": {},
        "use": None,
        "expires_at": "2030-01-02T03:04:05.000Z",
    }
    handler.status, handler.body, handler.content_type = 200, json.dumps(key | {"models": []}).encode(), "application/json"

    result = invoke("login", "--url", url, stdin="secret-key\n")
    assert "the key aB3dE6gH9k belongs to ada and has the role predict, until 2030-01-02 03:04 UTC\n" in result.stdout
    assert invoke("models").exit_code == 0

    assert result.exit_code == 0
    assert "secret-key" not in result.output
    assert sent == ["Bearer secret-key"] * 2
    assert (tmp_path / "config" / "rohe-inference" / "login.json").stat().st_mode & 0o777 == 0o600


def test_login_with_a_key_at_a_service_without_keys_says_so(answers: tuple[type[Answers], str]) -> None:
    handler, url = answers
    key = {"owner": "", "role": "admin", "key_id": None, "limits": {}, "use": None, "expires_at": None}
    handler.status, handler.body, handler.content_type = 200, json.dumps(key).encode(), "application/json"

    assert "the service has no keys; it ignores this one\n" in invoke("login", "--url", url, "--api-key", "key").stdout
    assert "the service has no keys\n" in invoke("login", "--url", url, "--no-api-key").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = invoke("completion", shell)

    assert result.exit_code == 0
    assert "_ROHE_INFERENCE_COMPLETE" in result.output
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=result.output, text=True, check=False).returncode == 0


def test_documentation_has_the_options_of_each_command(repository: Path) -> None:
    text = (repository / "docs/command-line.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w[\w-]*)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))

    for name, table in option_tables().items():
        assert name in sections, f"docs/command-line.md has no section {name}"
        assert table in sections[name], f"python -m rohe_inference.cli.reference prints the table of {name}"


def test_documentation_names_every_exit_code(repository: Path) -> None:
    text = (repository / "docs/command-line.md").read_text(encoding="utf-8")

    assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [code.value for code in ExitCode]


def test_examples_of_the_documentation_have_options_that_exist(repository: Path) -> None:
    text = (repository / "docs/command-line.md").read_text(encoding="utf-8")
    examples = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))

    calls = re.findall(r"rohe-inference ([a-z]+)([^|)#\n]*)", examples)
    assert len(calls) >= len(COMMANDS)
    for called, rest in calls:
        command = program.commands[called]
        assert isinstance(command, click.Command)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest.split() if re.match(r"-{1,2}[a-z]", word)} <= known, (called, rest)


def test_key_and_image_may_both_come_from_stdin(answers: tuple[type[Answers], str]) -> None:
    handler, url = answers
    sent: list[tuple[str | None, bytes]] = []

    def do_post(self: Answers) -> None:
        sent.append((self.headers["Authorization"], self.rfile.read(int(self.headers["Content-Length"]))))
        Answers.do_GET(self)

    handler.do_POST = do_post  # type: ignore[attr-defined]
    handler.status, handler.body = 415, b'{"status": 415, "code": "unsupported_image_type", "detail": "what is it?"}'

    result = invoke("predict", "-", "--url", url, "--api-key", "-", stdin=b"the-key\nthe-bytes")

    assert result.exit_code == ExitCode.FAILED
    ((key, body),) = sent
    assert key == "Bearer the-key"
    assert b"the-bytes" in body
