"""Large forms on their way through a temporary file."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from api_rig import assert_problem, encoded_form, picture
from flask.testing import FlaskClient

from api.forms import spool
from api.forms.spool import Spool, content_of
from inference.errors import ServiceUnavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SIZES = (0, 1, 999, 1_000, 1_001, 300_000, 700_000)


@pytest.fixture(autouse=True)
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_IN_MEMORY_BYTES", 1_000)


def unnamed_files() -> int:
    links = [Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd")]  # noqa: PTH208 the listing's own is gone
    return sum("(deleted)" in str(link.readlink()) for link in links if link.is_symlink())


def spooled(contents: list[bytes], piece_bytes: int) -> list[bytes]:
    spool = Spool()
    streams = []
    for content in contents:
        spool.begin()
        for start in range(0, len(content), piece_bytes):
            spool.write(content[start : start + piece_bytes])
        streams.append(spool.end())
    try:
        return [content_of(stream) for stream in streams]
    finally:
        spool.close()


@pytest.mark.parametrize("piece_bytes", [7_000, 2**18])
@pytest.mark.parametrize("order", [SIZES, tuple(reversed(SIZES)), (100,) * 30])
def test_contents_come_back_as_they_were(order: tuple[int, ...], piece_bytes: int) -> None:
    contents = [bytes([number]) * size for number, size in enumerate(order)]
    assert spooled(contents, piece_bytes) == contents


def test_no_file_is_left_and_none_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = unnamed_files()
    spool = Spool()
    spool.begin()
    spool.write(bytes(2_000))
    assert unnamed_files() == before + 1
    assert list(tmp_path.iterdir()) == []
    spool.end().close()
    assert unnamed_files() == before


def test_a_disk_without_room_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    spool = Spool()
    spool.begin()
    with pytest.raises(ServiceUnavailable):
        spool.write(bytes(2_000))


@pytest.mark.parametrize("path", ["/inference", "/inference/batch"])
def test_large_images_are_taken(client: FlaskClient, path: str) -> None:
    image = picture("PNG") + bytes(500_000)
    files = unnamed_files()
    response = client.post(path, **encoded_form([image] * (2 if "batch" in path else 1), {"mode": "async"}))
    assert response.status_code == 202, response.data
    response.close()
    assert unnamed_files() == files


@pytest.mark.parametrize("path", ["/inference", "/inference/batch"])
def test_a_form_that_breaks_off_leaves_no_file(client: FlaskClient, path: str) -> None:
    form: dict[str, Any] = encoded_form([bytes(500_000)], {})
    client.get("/health/live")
    files = unnamed_files()
    response = client.post(path, data=form["data"][:-20], content_type=form["content_type"])
    assert_problem(response, 400, "invalid_request")
    assert unnamed_files() == files
