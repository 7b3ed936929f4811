"""The backup of a data folder: its content, what is left out, and the broker's settings afterwards."""

from __future__ import annotations

import errno
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_server import RedisServer, own_redis_server

from inference.errors import ConfigurationError, ServiceUnavailable
from inference.launcher.backup_command import back_up
from inference.runtime.redis import embedded_socket
from inference.settings import Settings

_REWRITE = "auto-aof-rewrite-percentage"


def settings(data: Path, **sections: Any) -> Settings:
    return Settings(data_dir=data, **sections)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in (
        "uploads/2026/11/29/task-1",
        "dead-letters/task-2",
        "model-files/copy",
        "flower/db",
        "results.jsonl",
        "broker/broker.log",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_folder_of_a_stopped_service(data: Path, tmp_path: Path) -> None:
    (data / "broker/appendonlydir").mkdir()
    (data / "broker/appendonlydir/log").write_text("log")
    back_up(settings(data), tmp_path / "new/backup")
    assert files(tmp_path / "new/backup") == {
        "broker/appendonlydir/log",
        "uploads/2026/11/29/task-1",
        "dead-letters/task-2",
        "results.jsonl",
    }
    assert (tmp_path / "new/backup").stat().st_mode & 0o777 == 0o700


def test_broker_that_runs(tmp_path: Path) -> None:
    with own_redis_server() as server, redis.Redis.from_url(server.url) as client:
        data = Path(server.url.removeprefix("unix://").partition("?")[0]).parent.parent
        client.set("before", "1")
        wanted = client.config_get(_REWRITE)
        client.config_set(_REWRITE, 0)  # as a backup leaves it that is killed
        client.bgrewriteaof()  # the copy waits for it
        back_up(settings(data), tmp_path / "backup")
        assert client.config_get(_REWRITE) == wanted
        client.set("after", "1")
    restored = RedisServer(tmp_path / "backup")
    restored.start()
    try:
        with redis.Redis.from_url(restored.url) as client:
            assert (client.get("before"), client.get("after")) == (b"1", None)
    finally:
        restored.stop()


def test_data_elsewhere_is_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = tmp_path / "images"
    elsewhere.mkdir()
    back_up(settings(data, uploads={"path": elsewhere}), tmp_path / "backup")
    assert f"{elsewhere} is outside of {data}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["data/backup", "existing"])
def test_folders_that_are_refused(data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "existing").mkdir()
    with pytest.raises(ConfigurationError, match="name a"):
        back_up(settings(data), tmp_path / name)
    assert not (data / "backup").exists()


def test_a_backup_that_is_not_complete_is_not_taken_for_one(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copy2", fail)
        with pytest.raises(ServiceUnavailable, match="the backup is not complete"):
            back_up(settings(data), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    with pytest.raises(ConfigurationError, match=r"backup\.partial exists: remove it"):
        back_up(settings(data), tmp_path / "backup")


def test_a_broker_that_does_not_answer_is_not_taken_for_a_stopped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.launcher.backup_command._ANSWER_TIMEOUT_S", 0.1)
    with tempfile.TemporaryDirectory(prefix="inf-", dir="/tmp") as folder:  # short: a socket's path is limited
        address = embedded_socket(Path(folder) / "data")
        address.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen()
            with pytest.raises(ServiceUnavailable, match="does not answer"):
                back_up(settings(Path(folder) / "data"), Path(folder) / "backup")
        assert not (Path(folder) / "backup").exists()


def test_servers_of_ones_own_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"docs/backup\.md"):
        back_up(settings(data, broker={"url": "redis://127.0.0.1:1/0"}), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
