"""`make services`, tried with a server of a few lines and a `docker` that only pretends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.service import ROOT

from dev.servers import probes
from dev.servers.addresses import Credentials, addresses, write_private
from dev.servers.console import ServicesError
from dev.servers.docker import ComposeServers
from dev.servers.installation import install_once, require_program, run_step
from dev.servers.layout import Layout
from dev.servers.ports import PortBook
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports, Server

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

#: Answers PING; leaves a helper in a session of its own, as Erlang's epmd is one.
PONG = """
import socketserver, subprocess, sys
class Pong(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"+PONG\\r\\n")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
print("helper", subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
Server(("127.0.0.1", int(sys.argv[1])), Pong).serve_forever()
"""
BROKEN = "import sys; sys.exit('cannot read its settings')"


def kind(program: str = PONG) -> Kind:
    def prepare(_layout: Layout, ports: Ports) -> Launch:
        return Launch([sys.executable, "-c", program, str(ports["client"])])

    return Kind("pong", ("client", "other"), lambda _layout: None, prepare, probes.redis, stop_timeout_s=5.0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.log("pong").parent.mkdir(parents=True)
    layout.stamp("pong").parent.mkdir()
    return layout


@pytest.fixture
def server(layout: Layout) -> Iterator[Server]:
    server = Server(kind(), layout, PortBook(layout.ports))
    yield server
    server.stop()


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def helper(layout: Layout) -> int:
    return int(layout.log("pong").read_text(encoding="utf-8").split()[1])


@linux_only
class TestServer:
    def test_is_started_once_and_stopped_with_its_helper(self, server: Server, layout: Layout) -> None:
        server.bring_up(10)
        pid = server.pid()
        server.bring_up(10)

        assert (server.state(), server.pid()) == ("up", pid)
        left_behind = helper(layout)
        assert is_alive(left_behind)
        server.stop()
        assert (server.state(), server.pid()) == ("down", None)
        assert not is_alive(left_behind)

    def test_killed_comes_back_at_its_port_without_what_it_left(self, server: Server, layout: Layout) -> None:
        server.bring_up(10)
        endpoint, first, left_behind = server.endpoint(), server.pid(), helper(layout)
        assert first is not None
        os.kill(first, signal.SIGKILL)

        server.bring_up(10)

        assert server.endpoint() == endpoint
        assert server.pid() not in (first, None)
        assert not is_alive(left_behind)

    def test_a_pid_file_that_names_a_stranger_is_not_believed(self, server: Server, layout: Layout) -> None:
        layout.pid_file("pong").parent.mkdir()
        layout.pid_file("pong").write_text(f'{{"pid": {os.getpid()}, "started": 1}}', encoding="utf-8")

        assert server.pid() is None
        server.stop()  # and we are still here

    def test_is_found_though_its_pid_file_is_gone(self, server: Server, layout: Layout) -> None:
        server.bring_up(10)
        pid = server.pid()
        assert pid is not None
        layout.pid_file("pong").unlink()

        server.stop()

        assert not is_alive(pid)

    def test_that_breaks_shows_the_end_of_its_log(self, layout: Layout) -> None:
        broken = Server(kind(BROKEN), layout, PortBook(layout.ports))

        with pytest.raises(ServicesError, match=r"ended by itself \(exit code 1\)(.|\n)*cannot read its settings"):
            broken.bring_up(10)

    def test_that_never_answers_is_ended(self, layout: Layout) -> None:
        mute = Server(kind("import time; time.sleep(60)"), layout, PortBook(layout.ports))

        with pytest.raises(ServicesError, match=r"did not answer within 0\.5 s"):
            mute.bring_up(0.5)

        assert mute.pid() is None


class TestPortBook:
    def test_remembers(self, tmp_path: Path) -> None:
        chosen = PortBook(tmp_path / "ports.json").claim("redis", ["client", "other"])

        assert len(set(chosen.values())) == 2
        assert PortBook(tmp_path / "ports.json").claim("redis", ["client", "other"]) == chosen

    def test_chooses_again_what_somebody_else_took(self, tmp_path: Path) -> None:
        book = PortBook(tmp_path / "ports.json")
        before = book.claim("redis", ["client", "other"])
        with socket.create_server(("127.0.0.1", before["client"])):
            after = book.claim("redis", ["client", "other"])

        assert after["client"] != before["client"]
        assert after["other"] == before["other"]


class TestInstalling:
    def test_is_done_once_for_each_version_and_source(self, layout: Layout, tmp_path: Path) -> None:
        source = tmp_path / "pom.xml"
        done: list[str] = []
        for version, text in [("1", "a"), ("1", "a"), ("2", "a"), ("2", "b"), ("2", "b")]:
            source.write_text(text, encoding="utf-8")
            install_once(
                layout, "pong", version, [source], lambda done=done, what=version + text: done.append(what), makes=source
            )

        assert done == ["1a", "2a", "2b"]

    def test_is_done_again_when_what_it_made_is_gone(self, layout: Layout, tmp_path: Path) -> None:
        program = tmp_path / "program"
        install_once(layout, "pong", "1", [], program.touch, makes=program)
        program.unlink()
        install_once(layout, "pong", "1", [], program.touch, makes=program)

        assert program.exists()

    def test_that_fails_is_tried_again(self, layout: Layout) -> None:
        def fail() -> None:
            run_step(layout, "pong", [sys.executable, "-c", "import sys; sys.exit('no route')"], doing="downloading")

        for _ in range(2):
            with pytest.raises(ServicesError, match=r"downloading failed \(exit code 1\)(.|\n)*no route"):
                install_once(layout, "pong", "1", [], fail, makes=layout.root)

    def test_a_missing_program_is_named_with_its_use(self) -> None:
        with pytest.raises(ServicesError, match="`no-such-program` is not installed: it builds MinIO"):
            require_program("no-such-program", "it builds MinIO")


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "services.env"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o644)

    write_private(path, "new")

    assert path.read_text(encoding="utf-8") == "new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_versitygw_has_an_address_where_it_runs() -> None:
    endpoints = dict.fromkeys(("redis", "minio", "kafka", "mongo", "rabbitmq"), "127.0.0.1:1")
    keys = Credentials("access", "secret")
    assert "VERSITYGW_ENDPOINT" not in addresses(endpoints, keys)
    found = addresses(endpoints | {"versitygw": "127.0.0.1:2"}, keys)
    assert found["VERSITYGW_ENDPOINT"] == "http://127.0.0.1:2"


FAKE_DOCKER = r"""#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
  info) exit "${INFO:-0}" ;;
  "compose --profile rabbitmq port "*) echo "0.0.0.0:1$6" ;;
  "compose --profile rabbitmq up"*) exit "${UP:-0}" ;;
  "compose --profile rabbitmq logs"*) echo "kafka  | out of memory" ;;
  "compose --profile rabbitmq ps"*) printf 'redis healthy\nminio healthy\nkafka starting\nmongo healthy\napi healthy\n' ;;
esac
"""


class TestDocker:
    @pytest.fixture
    def compose(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ComposeServers:
        (tmp_path / "docker").write_text(FAKE_DOCKER, encoding="utf-8")
        (tmp_path / "docker").chmod(0o755)
        (tmp_path / "docker-compose.yml").touch()
        (tmp_path / "deploy/docker").mkdir(parents=True)
        shutil.copy(ROOT / "deploy/docker/make-secrets.sh", tmp_path / "deploy/docker")
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
        return ComposeServers(tmp_path)

    def test_is_used_when_its_engine_answers(self, compose: ComposeServers, monkeypatch: pytest.MonkeyPatch) -> None:
        assert compose.usable()
        monkeypatch.setenv("INFO", "1")
        assert not compose.usable()

    def test_addresses_are_the_published_ports(self, compose: ComposeServers, tmp_path: Path) -> None:
        found = compose.start(90)

        up = "compose --profile rabbitmq up -d --wait --wait-timeout 90 redis minio kafka mongo rabbitmq\n"
        assert up in (tmp_path / "calls").read_text("utf-8")
        secret = {file.name: file.read_text("utf-8") for file in (tmp_path / "secrets").iterdir()}
        assert found == {
            "REDIS_URL": f"redis://admin:{secret['redis-admin-password']}@127.0.0.1:16379/0",
            "MINIO_ENDPOINT": "http://127.0.0.1:19000",
            "MINIO_ACCESS_KEY": "root",
            "MINIO_SECRET_KEY": secret["minio-root-password"],
            "KAFKA_BOOTSTRAP": "127.0.0.1:19092",
            "MONGODB_URL": f"mongodb://root:{secret['mongo-root-password']}@127.0.0.1:127017/",
            "AMQP_URL": f"amqp://inference:{secret['rabbitmq-password']}@127.0.0.1:15672//",
        }

    def test_it_is_said_that_there_is_no_versitygw(self, compose: ComposeServers, capsys: pytest.CaptureFixture[str]) -> None:
        compose.start(90)
        assert "WARNING: docker-compose.yml has no VersityGW: tests of this second S3 do not run" in capsys.readouterr().err

    def test_secrets_are_made_once(self, compose: ComposeServers) -> None:
        assert compose.start(90) == compose.start(90)

    def test_a_secret_that_is_of_no_use_is_named(self, compose: ComposeServers, tmp_path: Path) -> None:
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets/redis-password").write_text("with/slash", encoding="utf-8")
        with pytest.raises(ServicesError, match="redis-password may have only letters"):
            compose.start(90)

    def test_what_does_not_come_up_shows_its_log(self, compose: ComposeServers, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UP", "1")

        with pytest.raises(ServicesError, match="out of memory"):
            compose.start(90)

    def test_status_knows_which_is_down(self, compose: ComposeServers, capsys: pytest.CaptureFixture[str]) -> None:
        assert not compose.status()
        states = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
        assert states == [["redis", "up"], ["minio", "up"], ["kafka", "silent"], ["mongo", "up"], ["rabbitmq", "down"]]


def test_runs_with_the_standard_library_alone(repository: Path) -> None:
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(repository)!r}); import dev.servers.__main__",
    ]

    assert subprocess.run(command, check=False, capture_output=True).stderr == b""
