"""ROHE's nested form on real servers: uploads in MinIO, results in Kafka for an ensemble and in MongoDB without one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_plus, urlsplit

import numpy as np
import pytest
import requests
from minio import Minio
from pymongo import MongoClient
from support.service import Service, wait_until
from support.tenant import read_topic

pytestmark = [pytest.mark.process, pytest.mark.services]


class Nested(NamedTuple):
    service: Service
    env: dict[str, str]
    #: of bucket, topic and collection, which are this test's alone
    name: str

    def predict(self, request_id: str) -> dict[str, Any]:
        metadata = json.dumps({"request_id": request_id, "shape": "32,32,3", "dtype": "float32"})
        files = {"image": ("image", np.zeros((32, 32, 3), np.float32).tobytes(), "application/octet-stream")}
        response = requests.post(
            f"{self.service.url}/inference_service", data={"command": "predict", "metadata": metadata}, files=files, timeout=60
        )
        assert response.status_code == requests.codes.ok, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in read_topic(self.env["KAFKA_BOOTSTRAP"], self.name)]

    def documents(self) -> list[dict[str, Any]]:
        with MongoClient[dict[str, Any]](self.env["MONGODB_URL"]) as client:
            return list(client["nii_case"][self.name].find())

    def uploads(self) -> list[str]:
        client = Minio(
            self.env["MINIO_ENDPOINT"].removeprefix("http://"),
            access_key=self.env["MINIO_ACCESS_KEY"],
            secret_key=self.env["MINIO_SECRET_KEY"],
            secure=False,
        )
        return [str(found.object_name) for found in client.list_objects(self.name, recursive=True)]


@pytest.fixture(params=[True, False], ids=["ensemble", "alone"])
def nested(request: pytest.FixtureRequest, services_env: dict[str, str], tmp_path: Path) -> Iterator[Nested]:
    name = f"nested-{uuid.uuid4().hex[:12]}"
    mongodb = urlsplit(services_env["MONGODB_URL"])
    variables = services_env | {
        "MONGODB_HOST": mongodb.hostname or "",
        "MONGODB_PORT": str(mongodb.port),
        "MONGODB_USERNAME": unquote_plus(mongodb.username or ""),
        "MONGODB_PASSWORD": unquote_plus(mongodb.password or ""),
        "INFERENCE_DATA_DIR": str(tmp_path / "data"),
        "INFERENCE_ENSEMBLE": str(request.param),
        "INFERENCE_UPLOADS__BUCKET": name,
        "INFERENCE_KAFKA__TOPIC": name,
        "INFERENCE_MONGODB__COLLECTION": name,
    }
    service = Service(tmp_path, {}, config=Path("configurations/nested.yaml"), variables=variables)
    try:
        service.start()
        yield Nested(service, services_env, name)
    finally:
        service.end()
        with MongoClient[dict[str, Any]](services_env["MONGODB_URL"]) as client:
            client["nii_case"].drop_collection(name)


def test_the_nested_form_serves_and_delivers(nested: Nested) -> None:
    answer = nested.predict("road-1")
    is_ensemble = requests.get(f"{nested.service.url}/inference_service", timeout=60).json()["ensemble_mode"]
    read = nested.records if is_ensemble else nested.documents
    (delivered,) = wait_until(read, timeout_s=60, what="the result is delivered")

    assert answer["response"]["label"] == str(answer["response"]["class"])
    assert (delivered["request_id"], delivered["pipeline_id"], delivered["inference_model_id"]) == (
        "road-1",
        "pipeline_1",
        "vgg_0",
    )
    assert np.asarray(delivered["prediction"]).argmax() == answer["response"]["class"]
    assert [key for key in nested.uploads() if key.endswith(answer["task_id"])]
