"""Files and folders that no other user of the host may read, change or replace."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.other_user import as_nobody, folder_of_all
from support.redis_server import own_redis_server

from inference.errors import ConfigurationError
from inference.launcher import embedded_broker
from inference.launcher.start_checks import check_start
from inference.runtime.redis import broker_url, embedded_socket, kombu_url
from inference.settings import Settings

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def shared_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files as /tmp is."""
    with folder_of_all() as folder:
        folder.chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Too long a path for a socket in it."""
    return tmp_path / ("x" * 120)


def refused(call: Callable[[], object]) -> str:
    """The error of `call`."""
    with pytest.raises(ConfigurationError) as error:
        call()
    return error.value.detail


def check_refused(data_dir: Path, why: str) -> None:
    """Every part that makes the socket or connects to it refuses to."""
    settings = Settings(data_dir=data_dir)
    for call in (
        lambda: embedded_broker.command(data_dir),
        lambda: check_start(settings, "everything"),
        lambda: check_start(settings, "broker"),
        lambda: broker_url(settings),
        lambda: kombu_url(settings),
    ):
        said = refused(call)
        assert why in said
        assert said.startswith("data_dir: ")


def test_the_folder_of_a_socket_is_made_for_its_user_alone(shared_temp: Path, data_dir: Path) -> None:
    broker_url(Settings(data_dir=data_dir))  # a client may be first
    folder = embedded_socket(data_dir).parent
    assert folder.parent == shared_temp
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert str(embedded_socket(data_dir)) in embedded_broker.command(data_dir)
    check_start(Settings(data_dir=data_dir), "everything")


@needs_root
def test_a_folder_that_another_user_made_first_is_refused(shared_temp: Path, data_dir: Path) -> None:
    folder = embedded_socket(data_dir).parent
    assert as_nobody(lambda: f"{os.mkdir(folder, 0o777)}") == "None"  # noqa: PTH102 it imports nothing new
    check_refused(data_dir, f"{folder} belongs to another user")


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_link_of_another_user_is_refused(shared_temp: Path, tmp_path: Path, data_dir: Path, mode: int) -> None:
    (tmp_path / "ours").mkdir(mode=mode)
    folder = embedded_socket(data_dir).parent
    assert as_nobody(lambda: f"{os.symlink(tmp_path / 'ours', folder)}") == "None"  # noqa: PTH211 it imports nothing new
    check_refused(data_dir, f"{folder} is not a folder")


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_is_open_to_others_is_refused(shared_temp: Path, data_dir: Path, mode: int) -> None:
    folder = embedded_socket(data_dir).parent
    folder.mkdir()
    folder.chmod(mode)
    check_refused(data_dir, f"{folder} is open to other users (mode {mode:04o}, not 0700)")


def test_a_file_in_its_place_is_refused(shared_temp: Path, data_dir: Path) -> None:
    embedded_socket(data_dir).parent.touch()
    check_refused(data_dir, "is not a folder")


def test_a_place_where_others_can_replace_it_is_refused(shared_temp: Path, data_dir: Path) -> None:
    shared_temp.chmod(0o777)
    check_refused(data_dir, "no sticky bit")


def test_a_folder_of_ours_that_is_open_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "broker"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    embedded_broker.command(tmp_path / "data")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(("mode", "warns"), [(0o777, True), (0o775, True), (0o755, False), (0o700, False), (0o1777, False)])
def test_a_data_folder_that_others_may_change_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    for part in ("everything", "broker", "flower"):
        caplog.clear()
        check_start(Settings(data_dir=folder), part)
        assert ("other users can replace files in" in caplog.text) is warns


@needs_root
def test_another_user_does_not_reach_the_embedded_broker() -> None:
    with own_redis_server() as server:
        path = server.url.removeprefix("unix://").partition("?")[0]
        Path(path).parent.parent.chmod(0o755)

        def connect() -> str:
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(path)
                except PermissionError:
                    return "refused"
                return "reached"

        assert as_nobody(connect) == "refused"
        assert connect() == "reached"
