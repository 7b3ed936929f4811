from __future__ import annotations

import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_samples import (
    LIMITS,
    PIXELS,
    READY_FLOAT,
    attempt,
    encoded,
    inspect,
    noise,
    npy,
    npy_with_header,
    png,
    png_chunk,
    png_rows,
    smooth,
    through,
)
from PIL import Image

from inference import imaging
from inference.domain import ImageHeader
from inference.errors import InvalidImage, PayloadTooLarge
from inference.imaging import png as png_files
from inference.imaging import webp as webp_files

STATM = Path("/proc/self/statm")
BLACK = Image.new("RGB", (50, 60))

ENCODED: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: encoded(noise(60, 50, 3), "PNG"),
    "PNG palette": lambda: encoded(Image.fromarray(noise(60, 50, 3)).quantize(200), "PNG"),
    "APNG": lambda: encoded(noise(60, 50, 3), "PNG", save_all=True, append_images=[BLACK]),
    "JPEG": lambda: encoded(smooth(60, 50), "JPEG"),
    "JPEG progressive": lambda: encoded(smooth(60, 50), "JPEG", progressive=True),
    "JPEG with EXIF": lambda: encoded(smooth(60, 50), "JPEG", exif=Image.Exif().tobytes(), icc_profile=bytes(500)),
    "WebP": lambda: encoded(smooth(60, 50), "WEBP"),
    "WebP lossless": lambda: encoded(noise(60, 50, 4), "WEBP", lossless=True),
    "WebP animation": lambda: encoded(smooth(60, 50), "WEBP", save_all=True, append_images=[BLACK]),
    ".npy": lambda: npy(noise(60, 50, 3)),
}  # fmt: skip


def survives(data: bytes, shape: object = None, dtype: object = None) -> bool:
    """Whether an image was taken by some model; it may be refused, with a field and as the sender's fault."""
    refusals = []
    for spec in (PIXELS, READY_FLOAT):
        refusals.append(attempt(partial(through, data, spec, shape=shape, dtype=dtype)))
        if (image_format := imaging.sniff(data)) is not None:
            # the worker on its own, without the door before it
            refusals.append(attempt(partial(imaging.decode, data, ImageHeader(image_format), spec, LIMITS)))
    assert all(refusal.status < 500 and refusal.field for refusal in refusals if refusal)
    return None in refusals


@pytest.mark.filterwarnings("ignore")
class TestHostileBytes:
    @pytest.mark.parametrize("name", ENCODED)
    def test_truncated_anywhere(self, name: str) -> None:
        data = ENCODED[name]()
        assert survives(data)
        # half of the animated PNG is its first frame
        eighths = range(4 if name == "APNG" else 8)
        assert not any(survives(data[: len(data) * eighth // 8]) for eighth in eighths)

    @pytest.mark.parametrize("name", ENCODED)
    def test_damaged_anywhere(self, name: str) -> None:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        data = np.frombuffer(ENCODED[name](), np.uint8)
        for case in range(120):
            damaged = data.copy()
            # headers are where the surprises are
            reach = 64 if case % 2 else len(damaged)
            places = rng.integers(0, min(reach, len(damaged)), rng.integers(1, 8))
            damaged[places] = rng.integers(0, 256, len(places))
            survives(damaged.tobytes())

    @pytest.mark.parametrize("at", range(2, 200, 20))
    def test_damaged_pixels_are_no_picture(self, at: int) -> None:
        rows = zlib.compress(png_rows(smooth(60, 60)))
        damaged = png(60, 60, 8, 2, b"").replace(
            png_chunk(b"IDAT", zlib.compress(b"")), png_chunk(b"IDAT", rows[:at] + bytes(40) + rows[at + 40 :])
        )
        assert not survives(damaged)

    def test_random_bytes(self) -> None:
        rng = np.random.default_rng(20)
        starts = [
            b"",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"RIFF\0\0\0\0WEBPVP8X",
            b"\x93NUMPY\x01\0",
        ]
        shapes, dtypes = [None, "32,32,3", "4x4", [1, 2, 2, 3], "0", 5], [None, "uint8", ">f4", "bool", "O", "float64"]
        for case in range(2000):
            data = starts[case % len(starts)] + rng.bytes(int(rng.choice([0, 3, 16, 48, 96, 200, 3072])))
            shape, dtype = (None, None) if case % 2 else (shapes[rng.integers(6)], dtypes[rng.integers(6)])
            survives(data, shape=shape, dtype=dtype)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP canvas", "WebP lossy", "WebP lossless", ".npy"])
    @pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
    def test_a_small_file_that_declares_a_huge_picture(self, kind: str) -> None:
        jpeg = bytearray(encoded(smooth(16, 16), "JPEG"))
        at = jpeg.index(b"\xff\xc0") + 5
        jpeg[at : at + 4] = struct.pack(">HH", 50_000, 50_000)
        # large enough for a canvas of 400 MB, small enough for Pillow's own limit
        side = 10_000
        data = {
            "PNG": png(50_000, 50_000, 8, 2, bytes(100)),
            "JPEG": bytes(jpeg),
            "WebP canvas": b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + (side - 1).to_bytes(3, "little") * 2 + bytes(80),
            "WebP lossy": b"RIFF\x64\0\0\0WEBPVP8 \x50\0\0\0\x30\1\0\x9d\1\x2a" + struct.pack("<HH", side, side) + bytes(80),
            "WebP lossless": b"RIFF\x64\0\0\0WEBPVP8L\x50\0\0\0\x2f" + struct.pack("<I", side - 1 | side - 1 << 14) + bytes(80),
            ".npy": npy_with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (50000, 50000, 3)}", bytes(99)),
        }[kind]
        assert len(data) < 1000
        with little_memory():
            for check in (inspect, lambda data: imaging.decode(data, ImageHeader(imaging.sniff(data)), PIXELS, LIMITS)):  # type: ignore[arg-type]
                with pytest.raises(PayloadTooLarge) as caught:
                    check(data)
                assert (caught.value.status, caught.value.field) == (413, "image")

    @pytest.mark.parametrize("kind", ["scans", "segments", "junk", "chunks"])
    def test_a_file_that_asks_for_endless_work(self, kind: str) -> None:
        jpeg = encoded(smooth(900, 900), "JPEG", progressive=True)
        last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
        whole_png = encoded(noise(9, 9, 3), "PNG")
        data = {
            "scans": jpeg[:-2] + (b"\xff\x01" + last_scan) * 200 + jpeg[-2:],
            "segments": jpeg[:2] + b"\xff\xfe\0\2" * 500_000 + jpeg[2:],
            "junk": jpeg[:2] + b"\xff\xfe\0\2" + bytes(2_000_000) + jpeg[2:],
            "chunks": whole_png[:33] + png_chunk(b"teSt", b"") * 200_000 + whole_png[33:],
        }[kind]
        with pytest.raises(InvalidImage) as caught:
            inspect(data)
        with pytest.raises(InvalidImage):
            imaging.decode(data, ImageHeader(imaging.sniff(data)), PIXELS, LIMITS)  # type: ignore[arg-type]
        assert caught.value.field == "image"

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_only_the_first_frame_of_an_animation_reaches_the_decoder(self, kind: str) -> None:
        """So that pixels times frames are no more than the pixels of one."""
        data = encoded(smooth(60, 50), kind, save_all=True, append_images=[BLACK, Image.new("RGB", (50, 60), "red")] * 50)
        file = png_files.read_png(data, pixels=True) if kind == "PNG" else webp_files.read_webp(data)
        assert file is not None
        frame = b"fdAT" if kind == "PNG" else b"ANMF"
        assert data.count(frame) >= 99
        assert file.encoded.count(frame) == (0 if kind == "PNG" else 1)

    def test_many_segments_and_scans_are_fine_within_reason(self) -> None:
        jpeg = encoded(smooth(60, 60), "JPEG", progressive=True)
        padded = jpeg[:2] + (b"\xff\xfe\xea\x60" + bytes(59_998)) * 90 + bytes(100) + jpeg[2:]
        np.testing.assert_array_equal(through(padded), through(jpeg))


@contextmanager
def little_memory(spare_bytes: int = 200_000_000) -> Iterator[None]:
    """Let no allocation of more than `spare_bytes` succeed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(STATM.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
