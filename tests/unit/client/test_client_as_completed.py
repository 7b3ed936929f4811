"""Many images with `as_completed`: how they are divided and sent, what is yielded, and what happens when something fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from client_answers import batch, batch_document, item_document
from rohe_inference import AsyncClient, Client, CompletedImage, InvalidRequest, Item, NotFound, UnexpectedAnswer
from rohe_inference.completion import Chunk, chunks_of
from support.client_callers import MakeCaller
from support.scripted_server import RESET, Scripted, problem, scripted_server
from test_client_requests import parts_of

PHOTOS = [b"zero", b"one", b"two", b"three", b"four"]


def lines(*items: tuple[int, str], batch_status: str = "ended", sent: int | None = None) -> Scripted:
    """A batch as JSON Lines."""
    head = {name: batch_document()[name] for name in ("batch_id", "counts")} | {"status": batch_status}
    documents: list[dict[str, Any]] = [{"index": index, **item_document(status)} for index, status in items]
    body = "".join(f"{json.dumps(document)}\n" for document in [*documents, head])
    return Scripted(body=body.encode(), headers={"Content-Type": "application/jsonl"}, sent=sent)


def indices(chunks: Iterator[Chunk]) -> list[list[int]]:
    return [[entry.index for entry in chunk.entries] for chunk in chunks]


class TestChunks:
    def test_images_are_divided_by_number(self) -> None:
        assert indices(chunks_of(PHOTOS, batch_size=2, key=None, done=())) == [[0, 1], [2, 3], [4]]

    def test_images_are_divided_by_size(self, tmp_path: Path) -> None:
        large = tmp_path / "large"
        with large.open("wb") as file:
            file.truncate(10 * 2**20)

        assert indices(chunks_of([large, large, b"small", large], batch_size=9, key=None, done=())) == [[0], [1, 2], [3]]

    def test_urls_are_sent_apart(self) -> None:
        images = ["s3://b/0", "s3://b/1", b"two", "s3://b/3"]

        assert indices(chunks_of(images, batch_size=9, key=None, done=())) == [[0, 1], [2], [3]]

    def test_parts_that_are_done_are_left_out_and_the_others_keep_their_keys(self) -> None:
        every = {chunk.key: indices(iter([chunk])) for chunk in chunks_of(PHOTOS, batch_size=2, key="run", done=())}
        rest = {chunk.key: indices(iter([chunk])) for chunk in chunks_of(PHOTOS, batch_size=2, key="run", done={0, 1, 2})}

        assert rest == {key: every[key] for key in ("run-2-3", "run-4-4")}

    def test_images_are_taken_as_they_are_needed(self) -> None:
        taken = []

        def photos() -> Iterator[bytes]:
            for photo in PHOTOS:
                taken.append(photo)
                yield photo

        next(chunks_of(photos(), batch_size=2, key=None, done=()))
        assert len(taken) == 3


def outcomes(found: list[CompletedImage]) -> list[tuple[int, Any, str]]:
    return [(one.index, one.image, one.status) for one in found]


def test_items_are_yielded_as_they_end(make_caller: MakeCaller) -> None:
    with scripted_server(lines((1, "succeeded"), (0, "failed")), lines((0, "succeeded"))) as server:
        found = make_caller(server.url).collect("as_completed", PHOTOS[:3], batch_size=2, concurrency=1, model="digits")

    assert outcomes(found) == [(1, b"one", "succeeded"), (0, b"zero", "failed"), (2, b"two", "succeeded")]
    assert found[0].get_result().label == "seven"
    first, second = (parts_of(request) for request in server.requests)
    assert ([content for _, content in first[0]], first[1]) == ([b"zero", b"one"], [{"model": "digits"}] * 2)
    assert [content for _, content in second[0]] == [b"two"]


def test_documents_are_understood_too(make_caller: MakeCaller) -> None:
    with scripted_server(batch("running", "succeeded"), batch("succeeded", "succeeded")) as server:
        found = make_caller(server.url).collect("as_completed", PHOTOS[:2])

    assert outcomes(found) == [(1, b"one", "succeeded"), (0, b"zero", "succeeded")]


def test_batch_that_takes_longer_is_asked_for(make_caller: MakeCaller) -> None:
    with scripted_server(lines((1, "succeeded"), batch_status="running"), lines((1, "succeeded"), (0, "expired"))) as server:
        found = make_caller(server.url).collect("as_completed", PHOTOS[:2])

    assert outcomes(found) == [(1, b"one", "succeeded"), (0, b"zero", "expired")]
    assert server.requests[1].target == "/batches/b1?wait=25"


@pytest.mark.parametrize("failure", [RESET, lines((0, "succeeded"), (1, "succeeded"), sent=300)], ids=["reset", "cut"])
def test_broken_answer_is_asked_for_again_and_each_image_yielded_once(make_caller: MakeCaller, failure: Scripted) -> None:
    with scripted_server(failure, lines((0, "succeeded"), (1, "succeeded"))) as server:
        found = make_caller(server.url).collect("as_completed", PHOTOS[:2], idempotency_key="run")

    assert sorted(outcomes(found)) == [(0, b"zero", "succeeded"), (1, b"one", "succeeded")]
    assert [request.headers["idempotency-key"] for request in server.requests] == ["run-0-1"] * 2


@pytest.mark.parametrize("body", [b"hello\n", b"{}\n", b""], ids=["no JSON", "another object", "no counts"])
def test_lines_of_another_server_are_told(make_caller: MakeCaller, body: bytes) -> None:
    answer = Scripted(body=body, headers={"Content-Type": "application/jsonl"})
    with scripted_server(answer) as server, pytest.raises(UnexpectedAnswer):
        make_caller(server.url).collect("as_completed", PHOTOS)


def test_bad_images_fail_alone(make_caller: MakeCaller, tmp_path: Path) -> None:
    images = [tmp_path / "missing.jpg", b"one"]
    with scripted_server(lines((0, "refused"))) as server:
        found = make_caller(server.url).collect("as_completed", images)

    assert outcomes(found) == [(0, images[0], "refused"), (1, b"one", "refused")]
    assert found[0].error.code == "unreadable_image"
    with pytest.raises(InvalidRequest, match="missing"):
        found[0].get_result()


def test_nothing_is_sent_if_no_image_can_be_read(make_caller: MakeCaller, tmp_path: Path) -> None:
    with scripted_server(batch()) as server:
        assert len(make_caller(server.url).collect("as_completed", [tmp_path / "missing.jpg"])) == 1

    assert server.requests == []


def test_request_that_is_too_large_is_divided(make_caller: MakeCaller) -> None:
    too_large = problem(413, "payload_too_large")
    with scripted_server(too_large, lines((0, "succeeded")), too_large, lines((0, "succeeded")), too_large) as server:
        found = make_caller(server.url).collect("as_completed", PHOTOS[:3], idempotency_key="run")

    assert outcomes(found) == [(0, b"zero", "succeeded"), (1, b"one", "succeeded"), (2, b"two", "refused")]
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys == ["run-0-2", "run-0-2a", "run-0-2b", "run-0-2ba", "run-0-2bb"]


def test_resumed_run_yields_only_what_is_missing(make_caller: MakeCaller) -> None:
    with scripted_server(lines((0, "succeeded"), (1, "succeeded"))) as server:
        images = [b"zero", b"one", b"two", b"three"]
        found = make_caller(server.url).collect("as_completed", images, batch_size=2, idempotency_key="run", done={0, 1, 3})

    assert outcomes(found) == [(2, b"two", "succeeded")]
    assert [request.headers["idempotency-key"] for request in server.requests] == ["run-2-3"]


def test_refusal_of_the_whole_is_raised(make_caller: MakeCaller) -> None:
    with scripted_server(problem(404, "model_not_found", field="metadata.model")) as server, pytest.raises(NotFound):
        make_caller(server.url).collect("as_completed", PHOTOS, batch_size=1, model="nothing")


def test_empty_run_sends_nothing(make_caller: MakeCaller) -> None:
    with scripted_server(batch()) as server:
        assert make_caller(server.url).collect("as_completed", []) == []

    assert server.requests == []


@pytest.mark.parametrize("numbers", [{"batch_size": 0}, {"concurrency": 0}])
def test_numbers_below_one_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Client("http://127.0.0.1:1").as_completed(PHOTOS, **numbers)  # type: ignore[arg-type]


def test_leaving_the_loop_sends_nothing_more() -> None:
    with scripted_server(lines((0, "succeeded"))) as server, Client(server.url) as client:
        for _ in client.as_completed((Item(photo) for photo in PHOTOS), batch_size=1, concurrency=1):
            break

    assert len(server.requests) == 1


async def leave_early(url: str) -> None:
    async with AsyncClient(url) as client, aclosing(client.as_completed(PHOTOS, batch_size=1, concurrency=1)) as outcomes:
        async for _ in outcomes:
            break


def test_leaving_the_loop_in_asyncio_sends_nothing_more() -> None:
    with scripted_server(lines((0, "succeeded"))) as server:
        asyncio.run(leave_early(server.url))

    assert len(server.requests) == 1
