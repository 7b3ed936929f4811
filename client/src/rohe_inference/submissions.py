"""Requests that submit images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rohe_inference.images import EncodedImage, ImageSource, encode, url_of
from rohe_inference.messages import Request
from rohe_inference.options import Item

#: Answers at once with the task or batch.
RESPOND_ASYNC = {"Prefer": "respond-async"}
#: Time that the service is asked to wait for an answer, in seconds: shorter than the patience of usual proxies.
WAIT_S = 25.0
#: A batch is answered once it has ended, or after this time.
PREFER_WAIT = {"Prefer": f"wait={WAIT_S:g}"}


@dataclass(frozen=True)
class LoadedImage:
    """Image that can be sent: its URL or its bytes, and the options that are its own."""

    content: str | EncodedImage
    options: Mapping[str, Any]


def as_item(image: ImageSource | Item) -> Item:
    """Give an image without options of its own the form of one that has some."""
    return image if isinstance(image, Item) else Item(image)


def load(item: Item) -> LoadedImage:
    """Read an image. Raises OSError, TypeError."""
    url = url_of(item.image)
    if url is not None:
        return LoadedImage(url, item.options)
    encoded = encode(item.image)
    return LoadedImage(encoded, {**encoded.options, **item.options})


def single_request(image: LoadedImage, headers: Mapping[str, str], options: Mapping[str, Any], *, patience_s: float) -> Request:
    """Make the request for one image."""
    wanted = {**options, **image.options}
    if isinstance(image.content, str):
        document = {"image": {"url": image.content}, **wanted}
        return Request("POST", "/inference", headers=headers, document=document, patience_s=patience_s)
    files = [(image.content.name, image.content.data)]
    return Request("POST", "/inference", headers=headers, files=files, metadata=json.dumps(wanted), patience_s=patience_s)


def batch_request(images: Sequence[LoadedImage], headers: Mapping[str, str], options: Mapping[str, Any]) -> Request:
    """Make the request for many images. Raises ValueError: there is none, or there are URLs among bytes."""
    if not images:
        raise ValueError("a batch needs at least one image")
    wanted = [{**options, **image.options} for image in images]
    urls = [image.content for image in images if isinstance(image.content, str)]
    if urls and len(urls) < len(images):
        raise ValueError("a batch has either URLs or images: send them in two batches, or use as_completed")
    send = partial(Request, "POST", "/inference/batch", headers=headers, patience_s=WAIT_S)
    if urls:
        return send(document={"items": [{**_reference(url), **own} for url, own in zip(urls, wanted, strict=True)]})
    files = [(image.content.name, image.content.data) for image in images if isinstance(image.content, EncodedImage)]
    return send(files=files, metadata=json.dumps(wanted if any(wanted) else {}))


def is_url(item: Item) -> bool:
    """Whether the image of an item is named by a URL."""
    return url_of(item.image) is not None


def _reference(url: str) -> dict[str, Any]:
    return {"object": url} if url.startswith("s3://") else {"image": {"url": url}}
