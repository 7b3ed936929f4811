"""Start and stop of the service, and its messages about errors."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from sklearn.datasets import load_digits
from support.redis_server import own_redis_server
from support.service import Service, wait_until

from inference.runtime.redis import connect

pytestmark = pytest.mark.process

DIGITS = {"models": ["models/digits"]}


def run_server(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "server.py", *arguments], cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )


def write(folder: Path, settings: dict[str, object]) -> str:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"data_dir": str(folder / "data")} | DIGITS | settings), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api": {"prot": 8080}}, "api.prot: unknown key; did you mean port?"),
        ({"api": {"port": 99999}}, "api.port: Input should be less than or equal to 65535 (got 99999)"),
        ({"models": ["models/none"]}, "cannot read the model description models/none/model.yaml: No such file or directory"),
        ({"default_model": "vgg"}, "default_model: vgg is not one of the models (digits)"),
        ({"sample_image": "none.jpg"}, "sample_image: there is no file none.jpg"),
        ({"broker": {"url": "kafka://x"}}, "broker.url: must be 'embedded', redis://HOST:PORT/DB"),
    ],
)
def test_a_bad_configuration_is_one_clear_line(
    repository: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    done = run_server(repository, "--config", write(tmp_path, settings))

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_configuration_is_one_clear_line(repository: Path) -> None:
    done = run_server(repository, "--conf", "none.yaml")

    assert (done.returncode, done.stderr) == (
        2,
        "error: cannot read the configuration none.yaml: No such file or directory\n",
    )


def test_a_port_in_use_is_one_clear_line(repository: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_server(repository, "--config", write(tmp_path, {}), "--port", str(port))

    assert done.returncode == 2
    assert done.stderr == (f"error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port\n")


@pytest.mark.parametrize("command", [[], ["api"]])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "nobody.invalid"], "api.host: nobody.invalid does not resolve to an address: "),
        (["--host", "192.0.2.1"], "api.host: 192.0.2.1 is not an address of this machine; "),
        (["--host", "http://127.0.0.1"], "api.host: must be a host name or an address alone, "),
        (["--host", "127.0.0.1:80"], "api.host: must be a host name or an address alone, "),
        (["--port", "0"], "api.port: Input should be greater than or equal to 1 (got '0')"),
        (["--port", "70000"], "api.port: Input should be less than or equal to 65535 (got '70000')"),
        (["--port", "abc"], "api.port: Input should be a valid integer, "),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_clear_line(
    repository: Path, tmp_path: Path, command: list[str], arguments: list[str], message: str
) -> None:
    done = run_server(repository, *command, "--config", write(tmp_path, {}), *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["api"]])
@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_port_in_use_is_one_clear_line_of_each_command(
    repository: Path, tmp_path: Path, command: list[str], host: str, shown: str
) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        done = run_server(repository, *command, "--config", write(tmp_path, {}), "--host", host, "--port", str(port))

    expected = f"error: cannot listen on {shown}:{port}: Address already in use; choose another with --port\n"
    assert (done.returncode, done.stderr) == (2, expected)


@pytest.mark.parametrize("host", ["::1", "::"])
def test_everything_on_ipv6_prints_a_url_that_is_reachable(tmp_path: Path, host: str) -> None:
    service = Service(tmp_path, DIGITS | {"api": {"host": host}, "security": {"anonymous": True}})
    service.url = f"http://[::1]:{service.port}"
    try:
        service.start()
        wait_until(lambda: f" at {service.url} " in service.log, timeout_s=30, what="it says that it is ready")
        assert f"starting the API on {service.url}\n" in service.log
    finally:
        service.end()


def test_a_part_alone_without_its_broker_says_so(repository: Path, tmp_path: Path) -> None:
    done = run_server(repository, "dead-letters", "list", "--config", write(tmp_path, {}))

    assert done.returncode == 1
    assert done.stderr.startswith("error: the task store does not answer: ")


def test_a_model_that_does_not_load_ends_the_start(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "model.yaml").write_text("{name: broken, file: broken.keras, input: {shape: [8, 8, 1]}}", encoding="utf-8")
    (folder / "broken.keras").write_bytes(b"not a model")

    done = run_server(repository, "--config", write(tmp_path, {"models": [str(folder)]}), "--port", "39999")

    assert done.returncode == 2
    assert "the model cannot be loaded" in done.stderr
    assert "error: the worker ended while it started" in done.stderr


def test_check_config_shows_every_error_and_masks_secrets(repository: Path, tmp_path: Path) -> None:
    wrong = run_server(repository, "check-config", write(tmp_path, {"api": {"port": 0, "prot": 1}, "pipeline": "x"}))
    right = run_server(repository, "check-config", write(tmp_path, {"broker": {"url": "redis://user:hunter2@localhost:6379/0"}}))

    assert wrong.returncode == 2
    assert [line.split(":")[0] for line in wrong.stderr.removeprefix("error: ").splitlines()] == [
        "api.port",
        "api.prot",
        "pipeline",
    ]
    assert right.returncode == 0
    assert "hunter2" not in right.stdout
    assert yaml.safe_load(right.stdout)["broker"]["url"] == "redis://user:**********@localhost:6379/0"


EVERY_PART = [
    ["server.py"],
    ["server.py", "check-config"],
    *(["server.py", part] for part in ("api", "relay", "broker")),
    *(["-m", "celery", "-A", "tasks", part] for part in ("worker", "flower")),
]


def run_part(repository: Path, command: list[str], config: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"INFERENCE_CONFIG": config, "FLOWER_BASIC_AUTH": "a:b"}
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", EVERY_PART, ids=lambda command: command[-1])
def test_every_part_says_what_is_wrong_with_its_settings(repository: Path, tmp_path: Path, command: list[str]) -> None:
    config = write(tmp_path, {"s3": {"endpoint": "http://host:9000/browser", "access_key": "key\n"}})
    done = run_part(repository, command, config)
    assert done.returncode == 2
    assert [line.partition(": ")[0] for line in done.stderr.removeprefix("error: ").splitlines()] == [
        "s3.endpoint",
        "s3.access_key",
    ]


@pytest.mark.parametrize("command", EVERY_PART, ids=lambda command: command[-1])
def test_every_part_says_what_is_wrong_with_its_data_folder(repository: Path, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    done = run_part(repository, command, write(tmp_path, {"data_dir": str(tmp_path / "file" / "data")}))
    assert done.returncode == 2
    assert f"data_dir: {tmp_path / 'file'} is not a folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["server.py"], *EVERY_PART[2:4], EVERY_PART[5]], ids=lambda command: command[-1])
def test_no_part_starts_on_a_redis_that_evicts(repository: Path, tmp_path: Path, command: list[str]) -> None:
    with own_redis_server() as server:
        with connect(server.url) as admin:
            admin.config_set("maxmemory-policy", "allkeys-lru")
        done = run_part(repository, command, write(tmp_path, {"broker": {"url": server.url}}))
    assert done.returncode == 2
    assert "broker.url: the Redis server evicts keys when its memory is full (maxmemory-policy allkeys-lru)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "starting the worker" not in done.stdout


@pytest.mark.parametrize(
    ("variables", "arguments", "says"),
    [
        ({"FLOWER_PORT": "99999"}, [], "FLOWER_PORT: 99999 is not a port"),
        ({"FLOWER_PORT": "abc"}, [], "FLOWER_PORT must be a whole number"),
        ({}, ["--port=TAKEN"], "cannot listen on 127.0.0.1:TAKEN: Address already in use"),
        ({"FLOWER_PORT": "TAKEN"}, [], "cannot listen on 127.0.0.1:TAKEN: Address already in use"),
        ({}, ["--address=a..b"], "FLOWER_ADDRESS: a..b does not resolve to an address"),
        ({"FLOWER_ADDRESS": "192.0.2.1"}, ["--port=0"], "FLOWER_ADDRESS: 192.0.2.1 is not an address of this machine"),
    ],
)
def test_flower_says_what_is_wrong_with_its_address(
    repository: Path, tmp_path: Path, variables: dict[str, str], arguments: list[str], says: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        config = write(tmp_path, {"data_dir": str(tmp_path), "models": ["models/digits"]})
        given = {name: value.replace("TAKEN", taken) for name, value in variables.items()}
        environment = os.environ | {"INFERENCE_CONFIG": config, "FLOWER_BASIC_AUTH": "a:b"} | given
        command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", *(one.replace("TAKEN", taken) for one in arguments)]
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says.replace("TAKEN", taken) in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_the_commands(repository: Path) -> None:
    done = run_server(repository, "--help")

    assert done.returncode == 0
    assert all(word in done.stdout for word in ("--config", "--conf", "--port", "--host", "api", "relay", "check-config"))


def digit() -> bytes:
    """8x8 float32 pixels of a zero."""
    return bytes((load_digits().images[0] * (255 / 16)).astype("<f4").tobytes())


METADATA = '{"shape": "8,8,1", "dtype": "float32"}'


def test_what_was_queued_when_the_server_was_killed_is_done_after_the_next_start(tmp_path: Path) -> None:
    service = Service(tmp_path, DIGITS | {"task_store": {"lease_s": 2, "requeue_lost_after_s": 1}})
    try:
        service.start()
        service.suspend_predictor()
        task_ids = [service.submit(digit(), metadata=METADATA) for _ in range(20)]
        wait_until(
            lambda: any(service.task(task_id)["status"] == "running" for task_id in task_ids),
            timeout_s=20,
            what="a batch is running",
        )
        service.remember_processes()
        assert service.process is not None
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not service.survivors(), timeout_s=40, what="a killed server.py leaves no process")

        service.start()
        ended = [service.task(task_id, wait_s=30) for task_id in task_ids]
        assert [task["status"] for task in ended] == ["succeeded"] * 20
        assert {task["result"]["class"] for task in ended} == {0}
    finally:
        service.end()


def test_sigterm_drains_and_leaves_no_process(tmp_path: Path) -> None:
    service = Service(tmp_path, DIGITS)
    try:
        service.start()
        task_ids = [service.submit(digit(), metadata=METADATA) for _ in range(50)]
        assert service.process is not None
        service.remember_processes()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        wait_until(lambda: not service.survivors(), timeout_s=60, what="no process is left")
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{service.url}/health/live", timeout=5)

        service.start()  # what it gave back
        ended = [service.task(task_id, wait_s=30) for task_id in task_ids]
        assert [task["status"] for task in ended] == ["succeeded"] * 50
        assert {task["attempts"] for task in ended} == {1}
    finally:
        service.end()
