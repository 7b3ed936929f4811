"""Archives and fetched files that are made to fill a disk or memory, or to leave their folder: each is refused."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import pytest

from inference.errors import ConfigurationError
from inference.models.archives import DEFAULT_LIMITS, ModelFileLimits, unpack
from inference.models.locations import FileLocation
from inference.models.object_cache import ObjectCache

MB = 2**20


def archive_in(folder: Path, *members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "m.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def info(name: str, *, mode: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def refusal_of_archive(path: Path, limits: ModelFileLimits = DEFAULT_LIMITS) -> str:
    target = path.parent / "unpacked"
    with zipfile.ZipFile(path) as archive, pytest.raises(ConfigurationError) as refused:
        unpack(archive, target, limits)
    assert not [found for found in target.rglob("*") if found.stat().st_size > MB]
    return refused.value.detail


class TestArchives:
    @pytest.mark.parametrize(
        "name", ["../m", "a/../../m", "/etc/m", "a\\..\\m", "a/\x1b[2Jm", "\u202egpj.m", "a" * 256, "/".join("a" * 30)]
    )
    def test_a_name_that_is_no_path_below_the_root_is_refused(self, tmp_path: Path, name: str) -> None:
        assert "has a member with a name that is" in refusal_of_archive(archive_in(tmp_path, (info(name), b"x")))

    @pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
    def test_a_link_or_a_device_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = archive_in(tmp_path, (info("m", mode=mode | 0o777), b"/etc/passwd"))
        assert "is a link or a special file" in refusal_of_archive(path)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize("names", [("m", "m"), ("m", "./m"), ("m", "m/x"), ("a/b/c", "a/b")])
    def test_two_members_of_one_place_are_refused(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        detail = refusal_of_archive(archive_in(tmp_path, *((name, b"x") for name in names)))
        assert "of the same name" in detail or "a file and a folder" in detail

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_method_whose_steps_have_no_bound_is_refused(self, tmp_path: Path, method: int) -> None:
        assert "neither stored nor deflated" in refusal_of_archive(archive_in(tmp_path, ("m", b"x" * 100), method=method))

    def test_one_member_that_unfolds_a_thousandfold_is_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, ("weights", os.urandom(2 * MB)), ("bomb", bytes(64 * MB)))
        assert "more than 100 times its stored size" in refusal_of_archive(path)

    def test_many_members_that_do_so_together_are_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, *((f"bomb-{number}", bytes(8 * MB)) for number in range(8)))
        assert "more than 100 times its stored size" in refusal_of_archive(path)

    def test_more_than_the_limit_is_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, ("a", os.urandom(MB)), ("b", os.urandom(MB)))
        assert "has 2 MiB when unpacked, more than 1 " in refusal_of_archive(path, ModelFileLimits(max_bytes=MB))

    def test_more_than_the_disk_has_room_for_is_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, ("a", b"x"))
        assert "stay free" in refusal_of_archive(path, ModelFileLimits(min_free_bytes=2**60))

    def test_too_many_members_are_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, *((f"{number}", b"") for number in range(10_001)), method=zipfile.ZIP_STORED)
        assert "has 10001 members" in refusal_of_archive(path)

    @pytest.mark.parametrize("declared", [10, 8 * MB + 1])
    def test_a_declared_size_that_is_not_true_is_found_out(self, tmp_path: Path, declared: int) -> None:
        """The CRC is that of what is declared, so that zipfile by itself stops there and is content."""
        content = os.urandom(8 * MB)
        path = archive_in(tmp_path, ("m", content))
        data = bytearray(path.read_bytes())
        crc = struct.pack("<I", zlib.crc32(content[:declared]))
        for signature, at in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
            begin = data.index(signature) + at
            data[begin : begin + 4] = crc
            data[begin + 8 : begin + 12] = struct.pack("<I", declared)
        path.write_bytes(data)
        with zipfile.ZipFile(path) as archive, pytest.raises((ConfigurationError, zipfile.BadZipFile)):
            unpack(archive, tmp_path / "unpacked", DEFAULT_LIMITS)
        assert (tmp_path / "unpacked" / "m").stat().st_size <= declared

    def test_members_that_overlap_are_refused(self, tmp_path: Path) -> None:
        """Many entries of the directory for the content of one member."""
        path = archive_in(tmp_path, ("aa", os.urandom(MB)))
        data = path.read_bytes()
        begin, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
        entry = data[begin:end]
        entries = b"".join(entry.replace(b"aa", f"{number:02}".encode()) for number in range(20))
        tail = bytearray(data[end:])
        tail[8:16] = struct.pack("<HHI", 20, 20, len(entries))
        path.write_bytes(data[:begin] + entries + tail)
        assert "overlap" in refusal_of_archive(path)

    def test_what_other_tools_write_is_taken(self, tmp_path: Path) -> None:
        members = ((info("./", mode=stat.S_IFDIR | 0o755), b""), (info("./a/"), b""), (info("./a/m", mode=stat.S_IFREG), b"x"))
        with zipfile.ZipFile(archive_in(tmp_path, *members)) as archive:
            unpack(archive, tmp_path / "unpacked", DEFAULT_LIMITS)
        assert (tmp_path / "unpacked/a/m").read_bytes() == b"x"


class Endless:
    """A store with an object that has no end."""

    def etag(self, *_: str) -> str:
        return "tag"

    def download(self, bucket: str, key: str, target: IO[bytes]) -> str:
        while True:
            target.write(bytes(MB))


@pytest.mark.parametrize(
    ("limits", "says"),
    [(ModelFileLimits(max_bytes=4 * MB), "has more than 4194304 bytes"), (ModelFileLimits(min_free_bytes=2**60), "stay free")],
)
def test_an_object_without_end_is_not_fetched(tmp_path: Path, limits: ModelFileLimits, says: str) -> None:
    cache = ObjectCache(tmp_path / "cache", Endless(), limits)
    with pytest.raises(ConfigurationError, match=says):
        cache.fetch(FileLocation.parse("s3://models/m.keras"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
