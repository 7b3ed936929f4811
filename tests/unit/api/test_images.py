"""Pictures by every route: what is no picture for the model is refused on all of them, what every viewer shows on none."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis
from api_rig import FakeWorker, encoded, form, post_batch, services_of
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image

PHOTO = Image.open(Path(__file__).parents[3] / "samples" / "coffee.jpg").convert("RGB").resize((64, 64))
PNG, JPEG, WEBP = (encoded(PHOTO, kind) for kind in ("PNG", "JPEG", "WEBP"))
PIXELS = np.asarray(PHOTO, np.float64)


def npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values.astype("<f4"))
    return file.getvalue()


TAKEN = {
    "PNG with a broken text": PNG[:33] + b"\0\0\0\3tEXta\0b\0\0\0\0" + PNG[33:],
    "PNG without an end": PNG[:-12],
    "JPEG without an end": JPEG[:-2],
    "JPEG with a broken profile": JPEG[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + JPEG[2:],
    "WebP of a wrong size": WEBP[:4] + b"\xff\xff\xff\0" + WEBP[8:],
    "resized": npy(PIXELS * 261 / 255 - 3),
}
REFUSED = {
    "half a PNG": (PNG[: len(PNG) // 2], "invalid_image"),
    "half a JPEG": (JPEG[: -len(JPEG) // 3], "invalid_image"),
    "half a WebP": (WEBP[: len(WEBP) // 2], "invalid_image"),
    "-1 to 1": (npy(PIXELS / 127.5 - 1), "invalid_image"),
    "0 to 1": (npy(PIXELS / 255), "invalid_image"),
    "centred": (npy(PIXELS - 128), "invalid_image"),
    "16 bits": (npy(PIXELS * 257), "invalid_image"),
    "base64": (base64.b64encode(JPEG), "unsupported_image_type"),
    "data URL": (b"data:image/jpeg;base64," + base64.b64encode(JPEG), "unsupported_image_type"),
}

Answer = dict[str, Any]


def now(client: FlaskClient, _: Flask, image: bytes) -> Answer:
    response = client.post("/inference", data=form(image))
    document: Answer = orjson.loads(response.data)
    return {"error": None} if response.status_code == 200 else {"error": document}


def later(client: FlaskClient, _: Flask, image: bytes) -> Answer:
    response = client.post("/inference", data=form(image), headers={"Prefer": "respond-async"})
    document: Answer = orjson.loads(response.data)
    if response.status_code != 202:
        return {"error": document}
    task: Answer = client.get(f"/tasks/{document['task_id']}?wait=10").json
    return task


def batch(client: FlaskClient, _: Flask, image: bytes) -> Answer:
    item: Answer = post_batch(client, [PNG, image], metadata={}).json["items"][1]
    return item


def reference(client: FlaskClient, app: Flask, image: bytes) -> Answer:
    services_of(app).objects.put("photos/one", image)
    response = client.post("/inference/batch", json={"items": [{"object": "s3://inference/photos/one"}]})
    item: Answer = response.json["items"][0]
    return item


ROUTES: dict[str, Callable[[FlaskClient, Flask, bytes], Answer]] = {
    "now": now,
    "later": later,
    "batch": batch,
    "batch of references": reference,
}


@pytest.fixture(scope="module")
def model_of_pixels(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The digits, with arrays as pictures of any size."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    folder.mkdir()
    for file in (repository / "models" / "digits").iterdir():
        if file.is_file() and file.name != "model.yaml":
            (folder / file.name).symlink_to(file)
    description = (repository / "models" / "digits" / "model.yaml").read_text()
    (folder / "model.yaml").write_text(description.replace("raw: model_ready", "raw: pixels"))
    return folder


@pytest.fixture
def app(make_app: Callable[..., Flask], model_of_pixels: Path) -> Flask:
    return make_app(models=(model_of_pixels,))


@pytest.fixture(autouse=True)
def _worker(app: Flask, redis_client: redis.Redis) -> Iterator[None]:
    worker = FakeWorker(services_of(app), redis_client).start()
    yield
    worker.stop()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("image", TAKEN.values(), ids=TAKEN)
def test_what_every_viewer_shows(client: FlaskClient, app: Flask, route: str, image: bytes) -> None:
    assert ROUTES[route](client, app, image)["error"] is None


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("image", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture(client: FlaskClient, app: Flask, route: str, image: bytes, code: str) -> None:
    error = ROUTES[route](client, app, image)["error"]
    assert error is not None
    assert (error["code"], error["field"]) == (code, "image")
    assert error["expected"]
