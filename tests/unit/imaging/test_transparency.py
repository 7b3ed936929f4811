"""Transparent parts are laid on white, for every colour type and bit depth that PNG has, interlaced and not."""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from image_samples import PIXELS, PIXELS_GREY, noise, png_chunk, through
from numpy.typing import NDArray

from inference.models.spec import InputSpec

GREY, RGB, INDEXED, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, INDEXED: 1, GREY_ALPHA: 2, RGBA: 4}
SIDE = 32
#: Adam7: first column and row, and the steps, of each pass (ISO/IEC 15948, 8.2)
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


class Kind(NamedTuple):
    colour: int
    depth: int

    @property
    def largest(self) -> int:
        return (1 << self.depth) - 1


KEYED = [Kind(GREY, depth) for depth in (1, 2, 4, 8, 16)] + [Kind(RGB, depth) for depth in (8, 16)]
WITH_ALPHA = [Kind(colour, depth) for colour in (GREY_ALPHA, RGBA) for depth in (8, 16)]
PALETTES = [Kind(INDEXED, depth) for depth in (1, 2, 4, 8)]


def packed(samples: NDArray[Any], depth: int) -> bytes:
    """Rows of samples, (H, W, C), each with the filter type 0 before it."""
    if depth == 16:
        rows = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8)
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(len(samples), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def written(samples: NDArray[Any], kind: Kind, *chunks: bytes, interlaced: bool) -> bytes:
    height, width, _ = samples.shape
    parts = [samples[y::down, x::right] for x, y, right, down in PASSES] if interlaced else [samples]
    pixels = b"".join(packed(part, kind.depth) for part in parts)
    header = struct.pack(">IIBBBBB", width, height, kind.depth, kind.colour, 0, 0, interlaced)
    body = [*chunks, png_chunk(b"IDAT", zlib.compress(pixels)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(body)


def samples_of(kind: Kind) -> NDArray[Any]:
    rng = np.random.default_rng(kind.colour * 100 + kind.depth)
    return rng.integers(0, kind.largest + 1, (SIDE, SIDE, CHANNELS[kind.colour]))


def expected(colours: NDArray[Any], alpha: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Colours and alpha from 0 to 1 on white, as the values that the model is given."""
    laid = (colours * alpha + (1 - alpha)) * 255
    if spec is PIXELS:
        return np.broadcast_to(laid, spec.shape)
    return (laid @ [0.299, 0.587, 0.114])[..., None] if laid.shape[-1] == 3 else laid


def assert_shown(data: bytes, colours: NDArray[Any], alpha: NDArray[Any]) -> None:
    for spec in (PIXELS, PIXELS_GREY):
        # of 16 bits the high byte is taken, which is up to 1 below the rounded value, of alpha too
        np.testing.assert_allclose(through(data, spec), expected(colours, alpha, spec), atol=2)


@pytest.mark.parametrize("interlaced", [False, True], ids=["", "interlaced"])
class TestOnWhite:
    @pytest.mark.parametrize("kind", KEYED, ids=str)
    def test_one_transparent_colour(self, kind: Kind, interlaced: bool) -> None:
        samples = samples_of(kind)
        colour = samples[3, 5]
        samples[8:20, 8:20] = colour
        if kind.depth == 16:
            # the same but for the last bit, which most decoders do not see
            samples[10, 10] = colour ^ 1
            samples[11, 11, -1] ^= 1
            samples[12, 12, 0] ^= 1
        trns = png_chunk(b"tRNS", colour.astype(">u2").tobytes())
        opaque = (samples != colour).any(-1, keepdims=True)
        assert_shown(written(samples, kind, trns, interlaced=interlaced), samples / kind.largest, opaque)

    @pytest.mark.parametrize("kind", [kind for kind in KEYED if kind.depth < 16], ids=str)
    def test_of_the_transparent_colour_the_low_bits_count(self, kind: Kind, interlaced: bool) -> None:
        samples = samples_of(kind)
        samples[:9] = colour = samples[3, 5] if kind.depth > 1 else np.array([1])
        trns = png_chunk(b"tRNS", (colour | 0x4000).astype(">u2").tobytes())
        opaque = (samples != colour).any(-1, keepdims=True)
        assert_shown(written(samples, kind, trns, interlaced=interlaced), samples / kind.largest, opaque)

    @pytest.mark.parametrize("colour", [GREY, RGB], ids=["grey", "colour"])
    def test_a_16_bit_picture_is_as_its_8_bit_form(self, colour: int, interlaced: bool) -> None:
        samples = samples_of(Kind(colour, 8))
        samples[8:20, 8:20] = samples[3, 5]
        short, long = (
            written(values, Kind(colour, depth), png_chunk(b"tRNS", values[3, 5].astype(">u2").tobytes()), interlaced=interlaced)
            for depth, values in ((8, samples), (16, samples * 257))
        )
        np.testing.assert_array_equal(through(long), through(short))
        assert (through(long)[8:20, 8:20] == 255).all()

    @pytest.mark.parametrize("kind", WITH_ALPHA, ids=str)
    def test_alpha(self, kind: Kind, interlaced: bool) -> None:
        samples = samples_of(kind)
        samples[:4, :, -1], samples[4:8, :, -1] = 0, kind.largest
        shown = samples / kind.largest
        assert_shown(written(samples, kind, interlaced=interlaced), shown[..., :-1], shown[..., -1:])

    @pytest.mark.parametrize("kind", PALETTES, ids=str)
    @pytest.mark.parametrize("entries", [1, 2, 300], ids=["the first", "two", "all"])
    def test_a_palette(self, kind: Kind, entries: int, interlaced: bool) -> None:
        palette = noise(kind.largest + 1, 3)
        alphas = np.full(kind.largest + 1, 255)
        alphas[:entries] = noise(300)[: min(entries, kind.largest + 1)]
        alphas[0] = 0
        samples = samples_of(kind)
        chunks = [png_chunk(b"PLTE", palette.tobytes()), png_chunk(b"tRNS", bytes(alphas[:entries].tolist()))]
        data = written(samples, kind, *chunks, interlaced=interlaced)
        assert_shown(data, palette[samples[..., 0]] / 255, alphas[samples] / 255)

    @pytest.mark.parametrize("kind", [*KEYED, *WITH_ALPHA], ids=str)
    @pytest.mark.parametrize("damage", ["checksum", "too short", "too long", "empty", "after the pixels"])
    def test_a_damaged_one_is_passed_over(self, kind: Kind, damage: str, interlaced: bool) -> None:
        samples = samples_of(kind)
        if kind.colour in (GREY_ALPHA, RGBA):
            samples[..., -1] = kind.largest
        colour = samples[3, 5].astype(">u2").tobytes()[: 6 if kind.colour in (RGB, RGBA) else 2]
        bodies = {"too short": colour[:-1], "too long": colour + b"\0", "empty": b""}
        chunk = png_chunk(b"tRNS", bodies.get(damage, colour))
        data = written(samples, kind, *([] if damage == "after the pixels" else [chunk]), interlaced=interlaced)
        if damage == "checksum":
            data = data.replace(chunk, chunk[:-1] + bytes([chunk[-1] ^ 1]))
        elif damage == "after the pixels":
            data = data[:-12] + chunk + data[-12:]
        channels = {GREY_ALPHA: 1, RGBA: 3}.get(kind.colour, CHANNELS[kind.colour])
        assert_shown(data, samples[..., :channels] / kind.largest, np.ones((SIDE, SIDE, 1)))
