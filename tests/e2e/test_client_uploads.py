"""Uploads of the client: images that are put into the object store first, and named by their URLs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rohe_inference import Client, InvalidRequest, Item
from support.service import Service

pytestmark = pytest.mark.process


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def digit(repository: Path) -> Path:
    return repository / "samples/digit_7.png"


def test_upload_is_named_by_every_kind_of_request(client: Client, digit: Path) -> None:
    url = client.upload(digit)

    assert client.predict(url, model="digits").class_id == 7
    assert client.wait(client.submit(url, model="digits")).get_result().class_id == 7
    batch = client.batch([url, Item(url, request_id="mine")], model="digits")
    assert [item.get_result().class_id for item in batch.items] == [7, 7]


def test_uploads_and_files_are_classified_together(client: Client, digit: Path) -> None:
    images = [client.upload(digit), digit, "s3://elsewhere/key"]
    found = {one.index: one.status for one in client.as_completed(images, model="digits")}

    assert found == {0: "succeeded", 1: "succeeded", 2: "refused"}


def test_url_that_is_not_allowed_names_the_field(client: Client) -> None:
    with pytest.raises(InvalidRequest) as raised:
        client.predict("s3://elsewhere/key")

    assert raised.value.field == "image.url"
