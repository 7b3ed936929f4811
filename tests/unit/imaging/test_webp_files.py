"""WebP files whose metadata, sizes or ends are broken: the picture is as without them, and half a picture is none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from image_samples import XMP, assert_refused, assert_same, encoded, inspect, noise, smooth, through
from PIL import Image

from inference.errors import InvalidImage

PNG = encoded(noise(32, 32, 3), "PNG")


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunks(data: bytes) -> list[bytes]:
    found, position = [], 12
    while position < len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        end = position + 8 + length + length % 2
        found.append(data[position:end])
        position = end
    return found


def webp(**options: Any) -> bytes:
    return encoded(noise(32, 32, options.pop("channels", 3)), "WEBP", **options)


WEBPS: dict[str, Callable[[], bytes]] = {
    "lossy": webp,
    "lossless": lambda: webp(lossless=True),
    "lossy with alpha": lambda: webp(channels=4),
    "lossless with alpha": lambda: webp(channels=4, lossless=True),
    "animation": lambda: webp(save_all=True, append_images=[Image.fromarray(noise(32, 32, 3, seed=1))]),
    "with metadata": lambda: webp(icc_profile=bytes(300), exif=b"Exif\0\0junk", xmp=XMP.replace(b"6", b"1")),
}


class TestWebP:
    @pytest.mark.parametrize("name", WEBPS)
    @pytest.mark.parametrize("size", [0, 8, 50, 2**32 - 10])
    def test_a_wrong_size_of_the_whole(self, name: str, size: int) -> None:
        whole = WEBPS[name]()
        assert_same(whole[:4] + struct.pack("<I", size) + whole[8:], whole)

    @pytest.mark.parametrize("name", WEBPS)
    @pytest.mark.parametrize("junk", [b"\0", b"junk", bytes(1000), b"EXIF\xff\xff\xff\xff", b"XMP \x09\0\0\0ab", PNG])
    def test_what_follows_it(self, name: str, junk: bytes) -> None:
        whole = WEBPS[name]()
        assert_same(whole + junk, whole)
        assert_same(riff(*webp_chunks(whole), junk), whole)

    @pytest.mark.parametrize("kind", [b"ICCP", b"EXIF", b"XMP "])
    @pytest.mark.parametrize("damage", ["cut", "too long", "too short", "gone", "twice", "junk"])
    def test_broken_metadata(self, kind: bytes, damage: str) -> None:
        whole = WEBPS["with metadata"]()
        kept = [chunk for chunk in webp_chunks(whole) if not chunk.startswith(kind)]
        body = b"Exif\0\0II*\0\xff\xff\xff\xff" * 10
        chunk = kind + struct.pack("<I", {"too long": 10_000, "too short": 3}.get(damage, len(body))) + body
        if damage == "cut":
            chunk = chunk[:40]
        elif damage in ("gone", "twice"):
            chunk *= 2 * (damage == "twice")
        assert_same(riff(*kept, chunk), whole)

    @pytest.mark.parametrize("name", [name for name in WEBPS if name != "animation"])
    def test_of_which_much_is_missing(self, name: str) -> None:
        whole = WEBPS[name]()
        pixels = max(webp_chunks(whole), key=len)
        end = whole.index(pixels) + len(pixels)
        for at in (end // 2, end * 3 // 4, end - 2):
            assert_refused(whole[:at], "WebP")
            with pytest.raises(InvalidImage, match="WebP"):
                inspect(whole[:at])

    @pytest.mark.parametrize("name", [name for name in WEBPS if name != "animation"])
    @pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
    def test_of_which_much_is_zeros(self, name: str, share: float) -> None:
        whole = WEBPS[name]()
        pixels = max(webp_chunks(whole), key=len)
        cut = whole.index(pixels) + int(len(pixels) * share)
        assert_refused(whole[:cut] + bytes(len(whole) - cut), "WebP")

    @pytest.mark.parametrize("value", [0, 128, 255])
    @pytest.mark.parametrize("part", [1, 2, 10])
    @pytest.mark.parametrize(
        "options", [{}, {"lossless": True}, {"quality": 10}, {"method": 0}, {"quality": 100, "method": 2}], ids=str
    )
    def test_a_part_of_one_colour_is_a_picture(self, value: int, part: int, options: dict[str, Any]) -> None:
        picture = smooth(900, 1100).copy()
        picture[len(picture) // part * (part - 1) :] = value
        through(encoded(picture, "WEBP", **options))

    def test_the_first_frame_of_a_broken_animation(self) -> None:
        whole = WEBPS["animation"]()
        first, second = (chunk for chunk in webp_chunks(whole) if chunk.startswith(b"ANMF"))
        assert_same(whole[: whole.index(second) + 30], whole)
        assert_refused(whole[: whole.index(first) + len(first) // 2], "WebP")

    def test_too_many_chunks(self) -> None:
        assert_refused(riff(b"VP8X\x0a\0\0\0" + bytes(4) + b"\x1f\0\0\x1f\0\0", b"junk\0\0\0\0" * 20_000), "WebP")
