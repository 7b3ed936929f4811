"""Calls of tritonclient.http, run in an environment of its own; prints the answers as JSON.

Arguments: the URL of the service, a file with the array of a seven.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

COFFEE = Path("samples/coffee.jpg").read_bytes()
PHOTO = "efficientnet-lite0"


def numbers(array, datatype, *, binary):
    image = InferInput("image", list(array.shape), datatype)
    image.set_data_from_numpy(array, binary_data=binary)
    return [image]


def files(*contents):
    return numbers(np.array(contents, dtype=object), "BYTES", binary=True)


def error_of(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def metadata(client):
    index = client.get_model_repository_index()
    return {
        "health": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("digits", "1")],
        "unknown": [client.is_model_ready("cats"), client.is_model_ready("digits", "7")],
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("digits"),
        "same": client.get_model_metadata("digits", "1") == client.get_model_metadata("digits"),
        "index": {entry["name"]: entry["state"] for entry in index},
        "load": client.load_model("digits"),
        "unload": error_of(lambda: client.unload_model("digits")),
        "config": error_of(lambda: client.load_model("digits", config="{}")),
    }


def arrays(client):
    seven = np.repeat(np.load(sys.argv[2])[None], 32, axis=0)
    plain = client.infer("digits", numbers(seven, "FP32", binary=True), model_version="1", request_id="sevens")
    ways = [
        client.infer("digits", numbers(seven, "FP32", binary=False)),
        client.infer("digits", numbers(seven.astype(np.uint8), "UINT8", binary=True)),
        *(
            client.infer(
                "digits",
                numbers(seven, "FP32", binary=True),
                request_compression_algorithm=sent,
                response_compression_algorithm=answered,
            )
            for sent, answered in (("gzip", "gzip"), ("deflate", "deflate"), (None, "gzip"))
        ),
        client.infer(
            "digits", numbers(seven, "FP32", binary=True), outputs=[InferRequestedOutput("prediction", binary_data=False)]
        ),
        client.async_infer("digits", numbers(seven, "FP32", binary=True)).get_result(),
    ]
    vectors = [way.as_numpy("prediction") for way in ways]
    return {
        "labels": plain.as_numpy("label").tolist() == [b"7"] * 32,
        "shape": list(plain.as_numpy("prediction").shape),
        "same": [bool(np.allclose(vector, plain.as_numpy("prediction"), atol=0.01)) for vector in vectors],
        "id": plain.get_response()["id"],
        "tasks": len(plain.get_response()["parameters"]["task_ids"].split(",")),
    }


def photos(client):
    best = InferRequestedOutput("prediction", class_count=2)
    text = InferRequestedOutput("prediction", binary_data=False, class_count=2)
    answer = client.infer(
        PHOTO, files(COFFEE, COFFEE), outputs=[best, InferRequestedOutput("label")], priority=2, timeout=50_000_000
    )
    return {
        "labels": [label.decode() for label in answer.as_numpy("label")],
        "best": [each.decode() for each in answer.as_numpy("prediction").ravel()],
        "in_json": client.infer(PHOTO, files(COFFEE), outputs=[text]).as_numpy("prediction").tolist(),
    }


def errors(client):
    good = np.zeros((1, 8, 8, 1), np.float32)
    return {
        "model": error_of(lambda: client.infer("cats", numbers(good, "FP32", binary=True))),
        "shape": error_of(lambda: client.infer("digits", numbers(good[:, :4], "FP32", binary=True))),
        "file": error_of(lambda: client.infer(PHOTO, files(COFFEE, b"no image"))),
        "not finite": error_of(lambda: client.infer("digits", numbers(good * np.nan, "FP32", binary=True))),
        "late": error_of(lambda: client.infer("digits", numbers(good, "FP32", binary=True), timeout=1)),
        "same id": error_of(
            lambda: [
                client.infer(
                    "digits", numbers(good + change, "FP32", binary=True), request_id="one", parameters={"idempotent": True}
                )
                for change in (0, 0, 1)
            ]
        ),
    }


def main():
    with InferenceServerClient(sys.argv[1].removeprefix("http://"), network_timeout=60) as client:
        found = {part.__name__: part(client) for part in (metadata, arrays, photos, errors)}
    print(json.dumps(found))


main()
