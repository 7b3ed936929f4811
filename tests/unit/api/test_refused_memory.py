"""Memory of refused requests: it is free with the answer, and waits for no garbage collection, since images may be large."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from api_rig import encoded_form, picture, post_batch
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

#: After a small picture, so that it is a large file.
_REST = bytes(1_000_000)
_REQUESTS = 5
_PARSER = tracemalloc.Filter(inclusive=True, filename_pattern="*/api/forms/parser.py")


@contextmanager
def without_collections() -> Iterator[Callable[[], int]]:
    """Gives how many bytes the form parser has allocated since that are not free again; the test's client is none of ours."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield lambda: sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([_PARSER]).traces)
    finally:
        tracemalloc.stop()
        gc.enable()


def broken_image(make_app: Any, _: Path) -> tuple[FlaskClient, bytes, int]:
    return make_app().test_client(), picture("PNG")[:20] + _REST, 400


def object_store_down(make_app: Any, tmp_path: Path) -> tuple[FlaskClient, bytes, int]:
    (tmp_path / "file").write_bytes(b"")
    return make_app(uploads={"path": tmp_path / "file"}).test_client(), picture("PNG") + _REST, 503


def record_store_down(make_app: Any, tmp_path: Path) -> tuple[FlaskClient, bytes, int]:
    return make_app(broker={"url": f"unix://{tmp_path}/nobody.sock"}).test_client(), picture("PNG") + _REST, 503


@pytest.mark.parametrize("why", [broken_image, object_store_down, record_store_down])
@pytest.mark.parametrize("is_batch", [False, True], ids=["one", "batch"])
def test_the_images_are_free_with_the_answer(make_app: Any, tmp_path: Path, why: Callable[..., Any], is_batch: bool) -> None:
    client, image, status = why(make_app, tmp_path)

    def send() -> TestResponse:
        if is_batch:
            return post_batch(client, [image] * 2, metadata={}, mode="async")
        return client.post("/inference", **encoded_form([image], {"mode": "async"}))

    send()
    with without_collections() as held_bytes:
        for _ in range(_REQUESTS):
            response = send()
            # An invalid item of a batch fails alone.
            assert response.status_code == (202 if is_batch and status == 400 else status), response.data
            response.close()
        assert held_bytes() < len(image)
