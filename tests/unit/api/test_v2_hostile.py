"""Requests of the Open Inference Protocol that lie: each is refused as the protocol says, and none is an error of the server."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import Any

import numpy as np
import orjson
import pytest
from api_rig import MakeApp, assert_problem
from flask.testing import FlaskClient
from v2_rig import (
    HEADER,
    INFER,
    arrays,
    assert_error,
    binary_body,
    binary_request,
    elements,
    infer,
    infer_binary,
    outputs,
    request_of,
    tensor,
)

GOOD = request_of(tensor(arrays(3)))
SHAPE = [1, 8, 8, 1]


def nested(depth: int) -> Any:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    return data


class TestTensors:
    @pytest.mark.parametrize(
        ("image", "text"),
        [
            (tensor([1.5] * 64, "UINT8", SHAPE), "data has numbers that UINT8 does not have"),
            (tensor([256] * 64, "UINT8", SHAPE), "data has numbers that UINT8 does not have"),
            (tensor([-1] * 64, "UINT8", SHAPE), "data has numbers that UINT8 does not have"),
            (tensor([2**70] * 64, "INT64", SHAPE), "data has numbers that INT64 does not have"),
            (tensor([1e300] * 64, "UINT64", SHAPE), "data has numbers that UINT64 does not have"),
            (tensor([True] * 64, "UINT8", SHAPE), "not a flat or nested list of numbers"),
            (tensor([1] * 64, "BOOL", SHAPE), "not a flat or nested list of true and false"),
            (tensor(["1"] * 64, "FP32", SHAPE), "not a flat or nested list of numbers"),
            (tensor([None] * 64, "FP32", SHAPE), "not a flat or nested list of numbers"),
            (tensor([{}] * 64, "FP32", SHAPE), "not a flat or nested list of numbers"),
            (tensor([[1], [2, 3]], "FP32", SHAPE), "not a flat or nested list of numbers"),
            (tensor([[1], 2], "FP32", SHAPE), "not a flat or nested list of numbers"),
            (tensor(nested(5), "FP32", SHAPE), "not a flat or nested list of numbers"),
            (tensor(nested(300), "FP32", SHAPE), "the body is nested too deeply"),
            (tensor([1] * 63, "FP32", SHAPE), "data has 63 elements; expected: 64"),
            (tensor([], "FP32", SHAPE), "data has 0 elements"),
            (tensor("abc", "FP32", SHAPE), "data is 'abc'; expected: a list"),
            (tensor(None, "FP32", SHAPE), "data is None; expected: a list"),
            (tensor([1], "FP32", []), "shape: List should have at least 1 item"),
            (tensor([1], "FP32", [1] * 9), "shape: List should have at most 8 items"),
            (tensor([1], "FP32", [-1, 8, 8, 1]), "shape.0: Input should be greater than or equal to 1"),
            (tensor([1], "FP32", [0, 8, 8, 1]), "shape.0: Input should be greater than or equal to 1"),
            (tensor([1], "FP32", [2**31, 8, 8, 1]), "shape.0: Input should be less than"),
            (tensor([1], "FP32", [2**70, 8, 8, 1]), "shape.0"),
            (tensor([1], "FP32", ["1", 8, 8, 1]), "shape.0: Input should be a valid integer"),
            (tensor([1], "FP32", [True, 8, 8, 1]), "shape.0: Input should be a valid integer"),
            (tensor([1], "FP32", [1, 2**31 - 1, 2**31 - 1, 2**31 - 1]), "data has 1 elements"),
            (tensor([1] * 64, "FP32", [8, 8, 1]), "has 3 dimensions; expected: 4"),
            (tensor([1] * 192, "FP32", [1, 8, 8, 3]), "image 0: the shape 8,8,3 is not the model's 8,8,1"),
            (tensor([1] * 64, "BF16", SHAPE), "there is no datatype 'BF16'"),
            (tensor([1] * 64, "float32", SHAPE), "there is no datatype 'float32'"),
            (tensor([1] * 64, "FP32", SHAPE) | {"name": "pixels"}, "there is no input 'pixels'; expected: the input image"),
            (tensor([1] * 64, "FP32", SHAPE, shared_memory_region="a"), "no shared memory"),
            (tensor([1] * 64, "FP32", SHAPE, binary_data_size=256), "binary_data_size is 256, and 0 bytes follow"),
            (tensor(None, "FP32", SHAPE, binary_data_size=-1), "binary_data_size: Input should be greater"),
            (tensor(None, "FP32", SHAPE, binary_data_size=2**70), "binary_data_size"),
            (tensor(None, "FP32", SHAPE, binary_data_size=0), "needs 256 bytes, and there are 0"),
            (tensor(["!"], "BYTES"), "not base64"),
            (tensor(["é"], "BYTES"), "not base64"),
            (tensor([""], "BYTES"), "image 0: the image is empty"),
            (tensor([1], "BYTES"), "not a flat or nested list of texts in base64"),
            (tensor(["AA=="], "BYTES", [2]), "data has 1 elements"),
            (tensor(["AA=="], "BYTES", [1, 2]), "is not that of image files; expected: [N] or [N, 1]"),
        ],
    )
    def test_in_json(self, client: FlaskClient, image: dict[str, Any], text: str) -> None:
        assert_error(infer(client, request_of(image)), 400, text)

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"", "the data has 0 elements and 0 more bytes"),
            (b"\xff\xff\xff\xff", "ends 4294967295 bytes behind the data"),
            (elements(b"abc")[:-1], "element 0 of BYTES ends 1 bytes behind"),
            (elements(b"abc"), "the data has 1 elements and 0 more bytes"),
            (elements(b"abc", b"abc", b"abc"), "the data has 2 elements and 7 more bytes"),
            (elements(b"", b""), "image 0: the image is empty"),
        ],
    )
    def test_binary_elements(self, client: FlaskClient, data: bytes, text: str) -> None:
        assert_error(infer_binary(client, data, "BYTES", [2]), 400, text)

    def test_sizes_that_differ(self, client: FlaskClient) -> None:
        assert_error(infer_binary(client, bytes(255), "FP32", SHAPE), 400, "needs 256 bytes, and there are 255")
        body, headers = binary_body(request_of(tensor(None, "FP32", SHAPE, binary_data_size=256)), bytes(300))
        assert_error(client.post(INFER, data=body, headers=headers), 400, "binary_data_size is 256, and 300 bytes follow")
        both = request_of(tensor([1] * 64, "FP32", SHAPE, binary_data_size=256))
        body, headers = binary_body(both, bytes(256))
        assert_error(client.post(INFER, data=body, headers=headers), 400, "data and binary_data_size")

    def test_every_input(self, client: FlaskClient) -> None:
        assert_error(infer(client, {"inputs": []}), 400, "inputs: List should have at least 1 item")
        assert_error(infer(client, {"inputs": [tensor(arrays(1))] * 2}), 400, "inputs: List should have at most 1 item")
        assert_error(infer(client, {}), 400, "inputs: Field required")


class TestBodies:
    @pytest.mark.parametrize("length", ["-1", "1.0", "", "x", "9" * 30, "0x10"])
    def test_a_length_that_is_none(self, client: FlaskClient, length: str) -> None:
        text = "Inference-Header-Content-Length is"
        assert_error(client.post(INFER, data=orjson.dumps(GOOD), headers={HEADER: length}), 400, text)

    def test_a_length_behind_the_body(self, client: FlaskClient) -> None:
        assert_error(client.post(INFER, data=b"{}", headers={HEADER: "3"}), 400, "is 3, and the body has 2 bytes")

    def test_a_length_inside_the_json(self, client: FlaskClient) -> None:
        assert_error(client.post(INFER, data=orjson.dumps(GOOD), headers={HEADER: "10"}), 400, "is not JSON")
        assert_error(client.post(INFER, data=orjson.dumps(GOOD), headers={HEADER: "0"}), 400, "is not JSON")

    @pytest.mark.parametrize("body", [b"\xff\xfe", b"\x89PNG\r\n", b"[1]", b"null", b'"a"', b"[" * 100_000, b'{"id":"\\ud800"}'])
    def test_no_object(self, client: FlaskClient, body: bytes) -> None:
        assert_error(client.post(INFER, data=body), 400, "")

    def test_no_body(self, client: FlaskClient) -> None:
        assert_error(client.post(INFER), 400, "inputs: Field required")

    def test_too_much(self, make_app: MakeApp) -> None:
        client = make_app(api={"max_body_bytes": 5 * 2**20}).test_client()
        headers = {HEADER: "100"}
        assert_error(client.post(INFER, data=bytes(6 * 2**20), headers=headers), 413, "5242880 bytes (api.max_body_bytes)")
        assert_error(client.post(INFER, data=bytes(4 * 2**20 + 1)), 413, "a request in JSON has at most 4194304 bytes")
        many = {HEADER: str(4 * 2**20 + 1)}
        assert_error(client.post(INFER, data=bytes(4 * 2**20 + 1), headers=many), 413, "a request in JSON has at most")

    @pytest.mark.usefixtures("worker")
    def test_any_media_type(self, client: FlaskClient) -> None:
        for media_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
            assert client.post(INFER, data=orjson.dumps(GOOD), content_type=media_type).status_code == 200

    def test_random_changes(self, client: FlaskClient) -> None:
        chance = random.Random(1)  # noqa: S311 repeatable
        body, headers = binary_request(elements(b"abc", b"def"), "BYTES", [2], id="r", parameters={"timeout": 1000})
        for _ in range(300):
            changed = bytearray(body)
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            response = client.post(INFER, data=bytes(changed), headers=headers)
            assert response.status_code == 400, (response.data, bytes(changed))


@pytest.mark.usefixtures("worker")
class TestCompression:
    BODY, HEADERS = binary_request(arrays(3, 8).tobytes(), "FP32", [2, 8, 8, 1])

    def send(self, client: FlaskClient, body: bytes, encoding: str, **headers: str) -> Any:
        return client.post(INFER, data=body, headers=self.HEADERS | {"Content-Encoding": encoding} | headers)

    def test_requests(self, client: FlaskClient) -> None:
        for body, encoding in (
            (gzip.compress(self.BODY), "gzip"),
            (gzip.compress(self.BODY), "GZIP"),
            (zlib.compress(self.BODY), "deflate"),
            (self.BODY, "identity"),
        ):
            assert outputs(self.send(client, body, encoding))["label"]["data"] == ["3", "8"]

    @pytest.mark.parametrize(
        ("body", "encoding", "status", "text"),
        [
            (b"", "gzip", 400, "the body has 0 bytes"),
            (b"no gzip", "gzip", 400, "the body is not gzip"),
            (gzip.compress(BODY), "deflate", 400, "the body is not deflate"),
            (gzip.compress(BODY)[:-9], "gzip", 400, "ends too early"),
            (gzip.compress(BODY) + b"x", "gzip", 400, "1 bytes follow the gzip body"),
            (gzip.compress(b"") * 100_000, "gzip", 400, "bytes follow the gzip body"),
            (zlib.compress(BODY) + b"x", "deflate", 400, "1 bytes follow the deflate body"),
            (BODY, "br", 415, "the body has the Content-Encoding 'br'; expected: gzip, deflate or none"),
            (BODY, "gzip, gzip", 415, "gzip, gzip"),
        ],
    )
    def test_refused(self, client: FlaskClient, body: bytes, encoding: str, status: int, text: str) -> None:
        response = self.send(client, body, encoding)
        assert_error(response, status, text)
        assert response.headers.get("Accept-Encoding") == ("gzip, deflate" if status == 415 else None)

    def test_a_bomb(self, client: FlaskClient) -> None:
        bomb = gzip.compress(bytes(64 * 2**20))
        assert len(bomb) < 2**18
        assert_error(self.send(client, bomb, "gzip"), 413, "the inflated body is larger than 33554432 bytes")

    def test_answers(self, client: FlaskClient) -> None:
        sent = orjson.dumps(request_of(tensor(np.repeat(arrays(3), 32, axis=0))))
        plain = client.post(INFER, data=sent)
        assert "Content-Encoding" not in plain.headers
        for accepted, encoding in (("gzip", "gzip"), ("deflate", "deflate"), ("gzip;q=0, deflate;q=0.5", "deflate")):
            response = client.post(INFER, data=sent, headers={"Accept-Encoding": accepted})
            assert response.headers["Content-Encoding"] == encoding
            assert response.headers["Vary"] == "Accept-Encoding"
            inflated = zlib.decompress(response.data, 47)
            assert orjson.loads(inflated)["outputs"] == plain.json["outputs"]
        for accepted in ("identity", "br", "gzip;q=0"):
            assert "Content-Encoding" not in client.post(INFER, data=sent, headers={"Accept-Encoding": accepted}).headers

    def test_binary_answers(self, client: FlaskClient) -> None:
        body, headers = binary_request(np.repeat(arrays(3), 32, axis=0).tobytes(), "FP32", [32, 8, 8, 1])
        document = orjson.loads(body[: int(headers[HEADER])]) | {"parameters": {"binary_data_output": True}}
        body, headers = binary_body(document, body[int(headers[HEADER]) :])
        response = client.post(INFER, data=body, headers=headers | {"Accept-Encoding": "gzip"})
        inflated = gzip.decompress(response.data)
        length = int(response.headers[HEADER])
        sizes = [output["parameters"]["binary_data_size"] for output in orjson.loads(inflated[:length])["outputs"]]
        assert length + sum(sizes) == len(inflated)


class TestErrorsOfOtherParts:
    @pytest.mark.parametrize("path", ["/v2/", "/v2/nothing", "/v2/models", "/v2/models/digits/stats", "/v2//health/live"])
    def test_unknown_paths(self, client: FlaskClient, path: str) -> None:
        assert_error(client.get(path), 404, "there is nothing at this path; expected: a path of docs/v2.md")

    def test_methods(self, client: FlaskClient) -> None:
        response = client.delete("/v2/models/digits")
        assert_error(response, 405, "this path does not take this method; expected: one of GET, HEAD, OPTIONS")
        assert "GET" in response.headers["Allow"]

    def test_queries(self, client: FlaskClient) -> None:
        for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits", "/v2/models/digits/ready"):
            assert_error(client.get(path, query_string={"verbose": 1}), 400, "there is no query parameter 'verbose'")
        for path in (INFER, "/v2/repository/index", "/v2/repository/models/digits/load", "/v2/repository/models/digits/unload"):
            assert_error(client.post(path, query_string={"verbose": 1}), 400, "there is no query parameter 'verbose'")

    def test_security_checks(self, client: FlaskClient) -> None:
        assert_error(client.get("/v2", headers={"Host": "evil.example"}), 421, "does not answer to the host")
        assert_error(client.post(INFER, headers={"Origin": "https://evil.example"}), 403, "may not send this request")

    def test_other_paths_have_problems(self, client: FlaskClient) -> None:
        for path in ("/v20", "/v", "/v2x/models", "/tasks/v2/nothing"):
            assert_problem(client.get(path), 404, "not_found")
