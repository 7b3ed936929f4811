"""`server.py probe`: exit codes, where it gets the address from, and what it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import server
from inference.launcher import probe
from inference.runtime.health import OK
from inference.runtime.monitoring_server import MonitoringServer, health_pages

ROOT = Path(__file__).parents[3]
Health = dict[str, str]


@pytest.fixture
def health() -> Health:
    """Readiness that the listening part reports."""
    return {"models": OK}


@pytest.fixture
def port(health: Health) -> Iterator[int]:
    listening = MonitoringServer("127.0.0.1", 0, health_pages(live=lambda: {"threads": OK}, ready=lambda: health), key="a port")
    listening.start()
    yield listening.port
    listening.stop()


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("INFERENCE_"):
            monkeypatch.delenv(name)


def test_a_part_that_is_healthy_gives_0_and_prints_nothing(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["worker", "--port", str(port)]) == 0
    assert probe.main(["worker", "--port", str(port), "--ready"]) == 0
    assert capsys.readouterr() == ("", "")


def test_one_that_is_not_ready_gives_1_and_its_checks_and_is_still_live(
    port: int, health: Health, capsys: pytest.CaptureFixture[str]
) -> None:
    health["process"] = "stopping"
    assert probe.main(["relay", "--port", str(port), "--ready"]) == 1
    status, _, document = capsys.readouterr().out.partition(" ")
    assert (status, json.loads(document)["checks"]) == ("503", {"models": "ok", "process": "stopping"})
    assert probe.main(["relay", "--port", str(port)]) == 0


def test_no_answer_gives_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["api", "--port", "9"]) == 1
    assert capsys.readouterr().out == "the api at 127.0.0.1 port 9 does not answer: [Errno 111] Connection refused\n"


@pytest.mark.parametrize("part", ["worker", "relay"])
def test_a_part_without_a_port_gives_2(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path, {})
    assert probe.main([part, "--config", str(config)]) == 2
    assert capsys.readouterr().err.startswith(f"error: monitoring.{part}_port is not set")


def test_a_wrong_configuration_gives_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["worker", "--config", str(write(tmp_path, {"monitoring": {"worker_port": 0}}))]) == 2
    assert "monitoring.worker_port" in capsys.readouterr().err


@pytest.mark.parametrize("run", [probe.main, lambda arguments: server.main(["probe", *arguments])], ids=["quick", "server.py"])
def test_the_address_comes_from_the_configuration(run: Callable[[list[str]], int], port: int, tmp_path: Path) -> None:
    config = write(tmp_path, {"monitoring": {"host": "0.0.0.0", "worker_port": port, "relay_port": 9}})  # noqa: S104
    assert run(["worker", "--config", str(config)]) == 0
    assert run(["relay", "--config", str(config)]) == 1


def test_variables_take_precedence_and_then_nothing_else_is_read(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_MONITORING__HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("INFERENCE_MONITORING__WORKER_PORT", str(port))
    assert probe.main(["worker", "--config", str(tmp_path / "missing.yaml")]) == 0


def test_a_port_alone_in_the_variables_joins_the_host_of_the_configuration(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_MONITORING__RELAY_PORT", str(port))
    assert probe.main(["relay", "--config", str(write(tmp_path, {"monitoring": {"host": "127.0.0.2"}}))]) == 1
    assert probe.main(["relay", "--config", str(write(tmp_path, {"monitoring": {"host": "127.0.0.1"}}))]) == 0


def test_it_imports_nothing_that_takes_long(port: int) -> None:
    code = (
        "import runpy, sys, atexit\n"
        "atexit.register(lambda: print(sorted({name.partition('.')[0] for name in sys.modules})))\n"
        "sys.argv = ['server.py', 'probe', 'worker', '--port', sys.argv[1]]\n"
        "runpy.run_path('server.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(port)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "argparse" in done.stdout
    assert not [
        name for name in ("yaml", "pydantic", "redis", "flask", "gevent", "numpy", "orjson", "http") if f"'{name}'" in done.stdout
    ]


def write(folder: Path, settings: dict[str, object]) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"data_dir": str(folder), "models": ["models/digits"], **settings}), encoding="utf-8")
    return file
