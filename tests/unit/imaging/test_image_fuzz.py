"""Damaged copies of every sample image through the checks of the API and the decoders of the worker.

A finding is an exception that is not a refusal, or a decoder that takes much more memory than the image says it needs.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from image_samples import LIMITS, PIXELS, READY_FLOAT, attempt, encoded, noise, npy, npy_with_header, smooth, through
from PIL import Image
from support.fuzzing import BUDGET, chance_of, mutations, spliced, with_budget

from inference import imaging
from inference.domain import ImageHeader

SAMPLES = [
    *(path for path in sorted(Path(__file__).parents[3].glob("samples/*.*")) if path.suffix != ".md"),
    *("APNG", "WebP animation", "progressive JPEG", ".npy", ".npy header"),
]
#: Memory that all images together may take: some images of `LIMITS`, as the decoders hold them.
MEMORY_BYTES = 256 * 2**20
CASES = 250


def content_of(sample: Path | str) -> bytes:
    picture = smooth(60, 50)
    match sample:
        case Path():
            return sample.read_bytes()
        case "APNG":
            return encoded(picture, "PNG", save_all=True, append_images=[another_frame()] * 3)
        case "WebP animation":
            return encoded(picture, "WEBP", save_all=True, append_images=[another_frame()] * 3)
        case "progressive JPEG":
            return encoded(picture, "JPEG", progressive=True)
        case ".npy":
            return npy(noise(32, 32, 3))
    return npy_with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (32, 32, 3), }" + " " * 20 + "\n", bytes(3072))


def another_frame() -> Image.Image:
    return Image.fromarray(smooth(60, 50, seed=1))


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let the process grow by no more than `MEMORY_BYTES`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def try_out(data: bytes) -> None:
    """Check and decode an image; each refusal is the sender's fault, and not a lack of memory."""
    refusals = []
    for spec in (PIXELS, READY_FLOAT):
        for shape, dtype in ((None, None), ("32,32,3", "uint8")):
            refusals.append(attempt(partial(through, data, spec, shape=shape, dtype=dtype)))
        if (found := imaging.sniff(data)) is not None:
            refusals.append(attempt(partial(imaging.decode, data, ImageHeader(found), spec, LIMITS)))
    assert all(refusal.status < 500 for refusal in refusals if refusal)


@with_budget
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: getattr(sample, "name", sample))
def test_damaged_copies(sample: Path | str) -> None:
    whole = content_of(sample)
    try_out(whole)
    # large photos take most of the time, and their decoders the same decisions as for small ones
    cases = CASES if len(whole) < 2**15 else CASES // 5
    with bounded_memory():
        for data in mutations(whole, cases * BUDGET, chance_of(str(sample))):
            try_out(data)


@with_budget
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_the_beginning_of_one_image_and_the_end_of_another() -> None:
    chance = chance_of("spliced")
    contents = [content_of(sample) for sample in SAMPLES if isinstance(sample, str)]
    with bounded_memory():
        for _ in range(CASES * BUDGET):
            try_out(spliced(contents, chance))
