"""Files whose text, profiles, previews or ends are broken: the picture is as without them, and half a picture is none."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_samples import (
    LIMITS,
    PIXELS,
    XMP,
    assert_refused,
    assert_same,
    encoded,
    noise,
    png,
    png_chunk,
    size_of,
    smooth,
    through,
)
from PIL import Image

from inference import imaging
from inference.domain import ImageFormat, ImageHeader

SAMPLES = Path(__file__).parents[3] / "samples"
BOMB = zlib.compress(bytes(1_500_000), 9)
PNG = encoded(noise(32, 32, 3), "PNG")
AFTER_HEADER = 33
#: first column and row of each pass of an interlaced picture, and the steps (ISO/IEC 15948, 8.2)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
END = -12


def damaged(chunk: bytes) -> bytes:
    """Return a file with a wrong checksum in this chunk."""
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


ANCILLARY = [
    b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"tIME", b"eXIf", b"bKGD", b"hIST", b"sBIT", b"sPLT",
    b"acTL", b"fcTL", b"fdAT", b"prVt",
]  # fmt: skip

CHUNKS = {
    **{f"{kind.decode()} with a wrong checksum": damaged(png_chunk(kind, bytes(26))) for kind in ANCILLARY},
    **{f"{kind.decode()} too short": png_chunk(kind, b"\0") for kind in ANCILLARY},
    **{f"empty {kind.decode()}": png_chunk(kind, b"") for kind in ANCILLARY},
    "zTXt of 1.5 MB": png_chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "iTXt of 1.5 MB": png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "profile of 1.5 MB": png_chunk(b"iCCP", b"icc\0\0" + BOMB),
    "orientation of 1.5 MB": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "XMP of 1.5 MB": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "unknown compression": png_chunk(b"zTXt", b"Comment\0\7abc") + png_chunk(b"iCCP", b"icc\0\7abc"),
    "broken compression": png_chunk(b"zTXt", b"Raw profile type exif\0\0abc") + png_chunk(b"iCCP", b"icc\0\0abc"),
    "300 texts": png_chunk(b"tEXt", b"a\0b") * 300,
    "5000 texts": png_chunk(b"tEXt", b"a\0b") * 5000,
    "100 texts of 1 MB": png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9)) * 100,
    "suggested palette": damaged(png_chunk(b"PLTE", bytes(300))),
    "a text that names what Pillow reads": png_chunk(b"tEXt", b"transparency\0x") + png_chunk(b"tEXt", b"exif\0x"),
}


ENDS = {
    "no end": PNG[:END],
    "half an end": PNG[:-6],
    "no checksum of the pixels": PNG[: END - 4],
    "no checksum in the pixels": PNG[: END - 8],
    "cut in a text": PNG[:END] + png_chunk(b"tEXt", bytes(500))[:200],
    "a text of a wrong length": PNG[:END] + b"\x7f\xff\xff\xfftEXt" + bytes(20),
    "junk": PNG + bytes(range(256)),
    "junk that looks like chunks": PNG + damaged(png_chunk(b"tEXt", b"x")) + png_chunk(b"IDAT", b"x"),
    "junk in place of the end": PNG[:END] + bytes(range(256)),
    "a second picture": PNG + PNG,
}  # fmt: skip


class TestPng:
    @pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
    @pytest.mark.parametrize("at", [AFTER_HEADER, END], ids=["before the pixels", "after the pixels"])
    def test_what_concerns_no_pixel(self, chunk: bytes, at: int) -> None:
        assert_same(PNG[:at] + chunk + PNG[at:], PNG)

    def test_a_palette_stays_with_what_is_beside_it(self) -> None:
        whole = encoded(Image.fromarray(noise(32, 32, 3)).quantize(50), "PNG", transparency=bytes(range(50)))
        text = damaged(png_chunk(b"tEXt", b"a\0b"))
        assert_same(whole[:AFTER_HEADER] + text + whole[AFTER_HEADER:], whole)

    @pytest.mark.parametrize("data", ENDS.values(), ids=ENDS)
    def test_ends(self, data: bytes) -> None:
        assert_same(data, PNG)

    @pytest.mark.parametrize("between", [b"", damaged(png_chunk(b"tEXt", b"a\0b")), png_chunk(b"IDAT", b"")])
    def test_pixels_in_many_chunks(self, between: bytes) -> None:
        body = PNG[AFTER_HEADER + 8 : END - 4]
        pieces = between.join(png_chunk(b"IDAT", body[at : at + 100]) for at in range(0, len(body), 100))
        assert_same(PNG[:AFTER_HEADER] + pieces + PNG[END:], PNG)

    def test_the_first_frame_of_a_broken_animation(self) -> None:
        data = encoded(noise(32, 32, 3), "PNG", save_all=True, append_images=[Image.fromarray(noise(32, 32, 3, seed=1))])
        assert_same(data[: data.index(b"fdAT") + 100], PNG)
        assert_same(data.replace(b"acTL", b"acTl"), PNG)

    @pytest.mark.parametrize(
        "data",
        [
            PNG[: len(PNG) // 2],
            PNG[: len(PNG) // 2] + PNG[END:],
            PNG[:AFTER_HEADER] + PNG[END:],
            PNG[: AFTER_HEADER - 1] + b"\0" + PNG[AFTER_HEADER:],
            PNG[:300] + bytes(50) + PNG[350:],
            PNG[:AFTER_HEADER] + b"\x7f\xff\xff\xfftEXt" + PNG[AFTER_HEADER:],
            PNG[:AFTER_HEADER] + png_chunk(b"tEXt", b"") * 200_000 + PNG[AFTER_HEADER:],
            PNG[:AFTER_HEADER] + png_chunk(b"IDAT", b"") * 200_000 + PNG[AFTER_HEADER:],
        ],
        ids=["half", "half with an end", "no pixels", "header", "damaged pixels", "no chunk follows", "texts", "pieces"],
    )
    def test_what_stays_refused(self, data: bytes) -> None:
        assert_refused(data)

    @pytest.mark.parametrize("is_interlaced", [False, True])
    @pytest.mark.parametrize(
        ("colour", "depth"), [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 2), (3, 8), (4, 8), (6, 8), (6, 16)]
    )
    @pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 31), (1, 9), (9, 1), (1, 1), (3, 2)])
    def test_rows_that_are_missing(self, width: int, height: int, colour: int, depth: int, is_interlaced: bool) -> None:
        bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        steps = ADAM7 if is_interlaced else ((0, 0, 1, 1),)
        sizes = [(len(range(left, width, across)), len(range(top, height, down))) for left, top, across, down in steps]
        for value in (b"\0", b"\xa5"):
            rows = b"".join((b"\0" + value * -(-columns * bits // 8)) * count for columns, count in sizes if columns)
            palette = (png_chunk(b"PLTE", bytes(range(256)) * 3),) if colour == 3 else ()
            last = 1 + -(-max(columns for columns, count in sizes if columns and count) * bits // 8)

            def of(rows: bytes, palette: tuple[bytes, ...] = palette) -> bytes:
                data = bytearray(png(width, height, depth, colour, rows, *palette))
                data[28] = is_interlaced
                data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
                return bytes(data)

            through(of(rows))
            for share in (0, 0.05, 0.2, 0.5):
                assert_refused(of(rows[: int(len(rows) * share)]))
            assert_refused(of(rows[:-last]))

    def test_a_palette_with_a_wrong_checksum_stays_refused(self) -> None:
        data = encoded(Image.fromarray(noise(32, 32, 3)).quantize(50), "PNG")
        end = data.index(b"PLTE") + 4 + 150 + 4
        assert_refused(data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:])


EXIF = Image.Exif()
EXIF[0x0112] = 6
PROFILE = b"\nexif\n%8d\n" % len(EXIF.tobytes()) + EXIF.tobytes().hex().encode() + b"\n"
ORIENTED = {
    "eXIf": png_chunk(b"eXIf", EXIF.tobytes()),
    "tEXt": png_chunk(b"tEXt", b"Raw profile type exif\0" + PROFILE),
    "zTXt": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE)),
    "iTXt": png_chunk(b"iTXt", b"Raw profile type exif\0\0\0\0\0" + PROFILE),
    "XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "compressed XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0XMP\0" + zlib.compress(XMP)),
}


class TestOrientation:
    @pytest.mark.parametrize("chunk", ORIENTED.values(), ids=ORIENTED)
    @pytest.mark.parametrize("at", [AFTER_HEADER, END], ids=["before the pixels", "after the pixels"])
    def test_of_a_png_wherever_it_is(self, chunk: bytes, at: int) -> None:
        broken = damaged(png_chunk(b"tEXt", b"a\0b")) + CHUNKS["zTXt of 1.5 MB"]
        np.testing.assert_array_equal(through(PNG[:at] + broken + chunk + PNG[at:]), np.rot90(through(PNG), -1))
        assert_same(PNG[:at] + damaged(chunk) + PNG[at:], PNG)

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
    @pytest.mark.parametrize(
        "place", [{"exif": EXIF}, {"xmp": XMP}, {"exif": EXIF, "xmp": XMP, "icc_profile": b"broken"}], ids=" and ".join
    )
    def test_of_the_others(self, kind: str, place: dict[str, Any]) -> None:
        picture = smooth(48, 48)
        turned, upright = (through(encoded(picture, kind, quality=95, **more), size_of(picture)) for more in (place, {}))
        np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


SEGMENTS = {
    "EXIF of nothing": segment(0xE1, b"Exif\0\0"),
    "EXIF of junk": segment(0xE1, b"Exif\0\0" + bytes(range(256))),
    "EXIF that is cut": segment(0xE1, b"Exif\0\0" + EXIF.tobytes()[:20]),
    "EXIF that points nowhere": segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "XMP of junk": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe"),
    "profile without a number": segment(0xE2, b"ICC_PROFILE\0"),
    "profile of which half is missing": segment(0xE2, b"ICC_PROFILE\0\2\4abc"),
    "MPF of junk": segment(0xE2, b"MPF\0\xff"),
    "FlashPix": segment(0xE2, b"FPXR\0\xff"),
    "Photoshop that is cut": segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\xff\xff"),
    "JFIF that is cut": segment(0xE0, b"JFIF\0\1"),
    "Adobe that is cut": segment(0xEE, b"Adobe\0"),
    "empty segments": b"".join(segment(marker, b"") for marker in (*range(0xE0, 0xF0), 0xFE)),
    "a length below 2": b"\xff\xfe\0\0",
    "2000 comments": segment(0xFE, b"a comment") * 2000,
    "padding": b"\xff" * 1000,
    "zeros": bytes(1000),
}


def drawn(**options: Any) -> bytes:
    with Image.open(SAMPLES / "coffee.jpg") as photo:
        picture = photo.resize((300, 200))
    return encoded(picture.convert(options.pop("mode", "RGB")), "JPEG", **options)


JPEGS: dict[str, Callable[[], bytes]] = {
    "baseline": drawn,
    "progressive": lambda: drawn(progressive=True),
    "fine": lambda: drawn(quality=98, subsampling=0),
    "coarse": lambda: drawn(quality=10, progressive=True),
    "grey": lambda: drawn(mode="L"),
    "grey progressive": lambda: drawn(mode="L", progressive=True),
    "CMYK": lambda: drawn(mode="CMYK"),
    "RGB": lambda: drawn(keep_rgb=True),
    "restarts": lambda: drawn(restart_marker_blocks=3),
    "a restart for each row": lambda: drawn(restart_marker_rows=1),
    "restarts progressive": lambda: drawn(restart_marker_rows=1, progressive=True),
    "a camera's": lambda: drawn(exif=EXIF, icc_profile=bytes(70_000), comment=b"\xff\xd9"),
}


class TestJpeg:
    @pytest.mark.parametrize("broken", SEGMENTS.values(), ids=SEGMENTS)
    @pytest.mark.parametrize("name", ["baseline", "CMYK", "RGB"])
    def test_what_concerns_no_pixel(self, name: str, broken: bytes) -> None:
        whole = JPEGS[name]()
        tables = whole.index(b"\xff\xdb")
        if broken.startswith(b"\xff"):
            assert_same(whole[:2] + broken + whole[2:], whole)
        assert_same(whole[:tables] + broken + whole[tables:], whole)

    @pytest.mark.parametrize("name", JPEGS)
    @pytest.mark.parametrize("missing", [1, 2, 3, 5])
    def test_without_its_last_bytes(self, name: str, missing: int) -> None:
        whole = JPEGS[name]()
        cut = through(whole[:-missing], size_of(np.empty((64, 64))))
        difference = np.abs(cut.astype(int) - through(whole, size_of(np.empty((64, 64)))))
        # of the third byte on the last block may be another
        assert difference.max() == 0 if missing < 3 else (difference.any(-1).mean() < 0.01)

    @pytest.mark.parametrize("name", JPEGS)
    @pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
    def test_of_which_much_is_missing(self, name: str, share: float) -> None:
        whole = JPEGS[name]()
        pixels = whole.index(b"\xff\xda")
        assert_refused(whole[: pixels + int((len(whole) - pixels) * share)], "truncated")

    @pytest.mark.parametrize("name", JPEGS)
    @pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5])
    @pytest.mark.parametrize("rest", ["end", "zeros", "zeros, end", "all zeros", "FF, end"])
    def test_of_which_much_is_missing_before_its_end(self, name: str, share: float, rest: str) -> None:
        whole = JPEGS[name]()
        pixels = whole.index(b"\xff\xda") + 14
        cut = pixels + int((len(whole) - pixels) * share)
        filler = {"end": b"", "all zeros": bytes(len(whole))}.get(rest, (b"\xff" if "FF" in rest else b"\0") * (len(whole) - cut))
        assert_refused(whole[:cut] + filler + (b"\xff\xd9" if "end" in rest else b""))

    @pytest.mark.parametrize("junk", [bytes(63), bytes(64), bytes(5000), b"\xff" * 500])
    @pytest.mark.parametrize("name", JPEGS)
    def test_junk_before_its_end(self, name: str, junk: bytes) -> None:
        whole = JPEGS[name]()
        assert_same(whole[:-2] + junk + whole[-2:], whole)

    @pytest.mark.parametrize("value", [0, 127, 128, 129, 255])
    @pytest.mark.parametrize("part", [1, 2, 10])
    @pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}], ids=str)
    @pytest.mark.parametrize("grey", [False, True])
    def test_a_part_of_one_colour_is_a_picture(self, value: int, part: int, options: dict[str, Any], grey: bool) -> None:
        picture = smooth(600, 800).copy()
        picture[len(picture) // part * (part - 1) :] = value
        whole = encoded(picture[..., 0] if grey else picture, "JPEG", **options)
        through(whole)
        through(whole[:-2])

    def test_what_a_sequential_scan_says_of_its_coefficients_is_not_read(self) -> None:
        whole = drawn()
        at = whole.index(b"\xff\xda") + 11
        assert_same(whole[:at] + bytes(3) + whole[at + 3 :], whole)

    def test_whole_scans_are_missing(self) -> None:
        whole = drawn(progressive=True)
        scans = [at for at in range(len(whole)) if whole.startswith(b"\xff\xda", at)]
        assert len(scans) > 5
        for at in scans[1:]:
            assert_refused(whole[:at], "truncated")
            # up to the tables of the scan
            assert_refused(whole[: whole.rindex(b"\xff\xc4", 0, at)], "truncated")

    @pytest.mark.parametrize("junk", [bytes(500), b"\xff" * 500, b"\r\n", PNG, drawn()], ids=["0", "FF", "line", "PNG", "JPEG"])
    def test_what_follows_it(self, junk: bytes) -> None:
        whole = drawn()
        assert_same(whole + junk, whole)
        if b"\xff" not in junk.strip(b"\xff"):
            assert_same(whole[:-2] + junk, whole)

    def test_many_profiles_take_no_more_than_their_bytes(self) -> None:
        whole = drawn()
        profiles = (segment(0xE1, b"Exif\0\0" + bytes(3000)) + segment(0xE2, b"ICC_PROFILE\0")) * 4000
        began = time.process_time()
        assert_same(whole[:2] + profiles + whole[2:], whole)
        assert time.process_time() - began < 2

    def test_without_an_end_fewer_scans_are_decoded(self) -> None:
        whole = drawn(progressive=True)
        last = whole[whole.rindex(b"\xff\xda") : -2]
        through(whole[:-2] + last * 60 + whole[-2:])
        assert_refused(whole[:-2] + last * 60, "more than 20 scans")

    def test_a_huge_picture_without_an_end_is_refused_for_its_size(self) -> None:
        data = bytearray(drawn()[:-2])
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
        with pytest.raises(imaging.InferenceError, match="more than the 1000000 allowed"):
            imaging.decode(bytes(data), ImageHeader(ImageFormat.JPEG), PIXELS, LIMITS)


def test_the_switch_of_pillow_for_truncated_files_stays_off() -> None:
    from PIL import ImageFile  # noqa: PLC0415

    through(drawn()[:-2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(drawn()[:-2])).load()
