"""Nothing that was sent is ignored: it is used, or refused by its name, wherever in a request it was and on every path."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import orjson
import pytest
from api_rig import (
    RAW_METADATA,
    FakeWorker,
    assert_problem,
    encoded_form,
    form,
    picture,
    post,
    post_batch,
    raw_form,
    raw_image,
    send,
    services_of,
)
from flask.testing import FlaskClient
from urllib3 import encode_multipart_formdata
from werkzeug.test import TestResponse

from api.forms.known_fields import OPTION_NAMES

CONTROLLER = "/inference_service_controller"
PREDICT = ["/inference", "/inference_service"]
IMAGES = [*PREDICT, "/inference/batch"]

#: Options that no request may have, each with the code of its refusal.
WRONG = {
    "model": ("none", "model_not_found"),
    "deadline_s": ("-1", "invalid_metadata"),
    "priority": ("10", "invalid_metadata"),
    "sinks": ("nowhere", "invalid_metadata"),
    "shape": ("round", "invalid_metadata"),
    "dtype": ("float33", "invalid_metadata"),
    "request_id": ("x" * 257, "invalid_metadata"),
}


def refused_with(response: TestResponse) -> str:
    """The code of the refusal, of a request or of the first item of a batch."""
    document = response.json
    error = document["items"][0]["error"] if "items" in document else document
    assert error is not None, document
    return str(error["code"])


class TestOptions:
    @pytest.mark.parametrize("path", IMAGES)
    @pytest.mark.parametrize("option", WRONG)
    @pytest.mark.parametrize("how", ["metadata", "field", "file", "query", "metadata as a file", "metadata in the query"])
    def test_wherever_it_is_it_counts(self, client: FlaskClient, path: str, option: str, how: str) -> None:
        value, code = WRONG[option]
        metadata = RAW_METADATA | {option: value} if how.startswith("metadata") else dict(RAW_METADATA)
        if not how.startswith("metadata"):
            metadata.pop(option, None)
        text = orjson.dumps(metadata).decode()
        parts: list[tuple[str, Any]] = [] if how == "metadata in the query" else [("metadata", text)]
        query = {"metadata": text} if how == "metadata in the query" else None
        match how:
            case "metadata as a file":
                parts = [("metadata", ("m.json", text, "application/json"))]
            case "field":
                parts.append((option, value))
            case "file":
                parts.append((option, ("blob", value, "text/plain")))
            case "query":
                query = {option: value}
        assert refused_with(send(client, path, parts, query)) == code

    @pytest.mark.parametrize("option", sorted(set(WRONG) - {"shape", "dtype"}))
    def test_in_the_query_of_a_batch_of_objects(self, client: FlaskClient, app: Any, option: str) -> None:
        services_of(app).objects.put("a.png", picture("PNG"))
        body = {"items": [{"object": "s3://inference/a.png"}]}
        value, code = WRONG[option]
        assert refused_with(client.post("/inference/batch", json=body, query_string={option: value})) == code

    @pytest.mark.parametrize("path", IMAGES)
    def test_a_byte_order_mark_is_no_part_of_a_text(self, client: FlaskClient, worker: FakeWorker, path: str) -> None:
        text = b"\xef\xbb\xbf" + orjson.dumps(RAW_METADATA)
        assert send(client, path, [("metadata", ("m.json", text, "application/json"))]).status_code == 200

    @pytest.mark.parametrize("path", IMAGES)
    @pytest.mark.parametrize("name", ["metadata", "model", "command", "request_id"])
    def test_text_that_is_no_utf_8(self, client: FlaskClient, path: str, name: str) -> None:
        assert_problem(send(client, path, [(name, b"caf\xe9")]), 400, "invalid_request", field=name)

    @pytest.mark.parametrize("path", IMAGES)
    @pytest.mark.parametrize("name", ["metadata", "model", "command", "request_id", "mode"])
    @pytest.mark.parametrize("other", ["x", "y"], ids=["the same", "another"])
    def test_twice(self, client: FlaskClient, path: str, name: str, other: str) -> None:
        assert_problem(send(client, path, [(name, "x"), (name, other)]), 400, "invalid_request", field=name)
        twice = f"{path}?{name}=x&{name}={other}"
        assert_problem(send(client, twice, []), 400, "invalid_request", field=name)


class TestTwoPlaces:
    def test_the_same_is_said_twice(self, client: FlaskClient, worker: FakeWorker) -> None:
        metadata = RAW_METADATA | {"deadline_s": 5, "priority": 3, "sinks": [], "model": "digits", "shape": [8, 8, 1]}
        fields = {"deadline_s": "5.0", "priority": "3", "sinks": "", "model": "digits", "shape": "8x8x1", "dtype": "<f4"}
        for query in ({}, fields):
            response = client.post(
                "/inference", query_string=query, **encoded_form([raw_image()], form(metadata=metadata, **fields))
            )
            assert response.status_code == 200, response.data
        assert post_batch(client, [1], metadata=metadata, **fields).json["items"][0]["error"] is None

    @pytest.mark.parametrize(("inside", "outside"), [("digits", "none"), ("none", "digits")])
    @pytest.mark.parametrize("path", IMAGES)
    def test_metadata_and_a_field_differ(self, client: FlaskClient, path: str, inside: str, outside: str) -> None:
        for query, fields in (({"model": outside}, []), ({}, [("model", outside)])):
            parts = [("metadata", orjson.dumps(RAW_METADATA | {"model": inside})), *fields]
            problem = assert_problem(send(client, path, parts, query), 400, "invalid_metadata", field="metadata.model")
            assert "'digits'" in problem["detail"]
            assert "'none'" in problem["detail"]

    @pytest.mark.parametrize("path", IMAGES)
    def test_form_and_query_differ(self, client: FlaskClient, path: str) -> None:
        parts = [("metadata", orjson.dumps(RAW_METADATA)), ("request_id", "a")]
        problem = assert_problem(send(client, path, parts, {"request_id": "b"}), 400, "invalid_request", field="request_id")
        assert "query" in problem["detail"]

    def test_body_and_query_of_a_batch_of_objects_differ(self, client: FlaskClient) -> None:
        body = {"items": [{"object": "s3://inference/a"}], "model": "digits"}
        response = client.post("/inference/batch?model=none", json=body)
        assert_problem(response, 400, "invalid_metadata", field="metadata.model")

    @pytest.mark.parametrize("empty", ["", None])
    def test_what_is_empty_in_one_is_said_in_the_other(self, client: FlaskClient, worker: FakeWorker, empty: Any) -> None:
        response = post(client, raw_form(metadata={"model": "none"}, model=""))
        assert_problem(response, 404, "model_not_found")
        response = post(client, raw_form(metadata={"model": empty, "priority": empty}, model="none"))
        assert_problem(response, 404, "model_not_found")

    def test_an_item_of_a_batch_takes_precedence(self, client: FlaskClient, worker: FakeWorker) -> None:
        metadata = [RAW_METADATA | {"request_id": "own"}, RAW_METADATA]
        body = post_batch(client, [1, 2], metadata=metadata, request_id="all").json
        assert [item["request_id"] for item in body["items"]] == ["own", "all"]

    @pytest.mark.parametrize("where", ["metadata", "items"])
    def test_a_mode_of_one_item_alone(self, client: FlaskClient, where: str) -> None:
        if where == "metadata":
            response = post_batch(client, [1, 2], metadata=[RAW_METADATA, RAW_METADATA | {"mode": "async"}])
        else:
            items = [{"object": "s3://inference/a"}, {"object": "s3://inference/a", "mode": "async"}]
            response = client.post("/inference/batch", json={"items": items})
        assert_problem(response, 400, "invalid_request", field=f"{where}.1.mode")
        metadata = [RAW_METADATA | {"mode": "async"}] * 2
        assert post_batch(client, [1, 2], metadata=metadata, mode="async").status_code == 202

    @pytest.mark.parametrize(
        "sent",
        [("deadline_s", "5", "5.0"), ("priority", "3", " 3"), ("shape", "8,8,1", "8x8x1"), ("dtype", "<f4", "float32")],
    )
    @pytest.mark.parametrize("path", IMAGES)
    def test_form_and_query_mean_the_same(
        self, client: FlaskClient, worker: FakeWorker, path: str, sent: tuple[str, str, str]
    ) -> None:
        name, body, query = sent
        parts = [(option, value) for option, value in RAW_METADATA.items() if option != name]
        assert send(client, path, [*parts, (name, body)], {name: query}).status_code == 200

    @pytest.mark.parametrize("path", IMAGES)
    def test_empty_inputs_of_a_form_say_nothing(self, client: FlaskClient, worker: FakeWorker, path: str) -> None:
        empty = ("mode", "deadline_s", "shape", "dtype", "command", "model", "priority", "metadata", "request_id")
        picture_part = ("image", ("a.png", picture("PNG"), "image/png"))
        data, content_type = encode_multipart_formdata([picture_part, *((name, "") for name in empty)])
        response = client.post(path, data=data, content_type=content_type, query_string=dict.fromkeys(empty, ""))
        assert response.status_code == 200, response.data
        assert refused_with(send(client, path, [("metadata", "{}"), ("shape", "round"), ("dtype", "")], {"shape": ""}))


class TestUnknownFields:
    @pytest.mark.parametrize("path", IMAGES)
    @pytest.mark.parametrize(
        ("name", "near"), [("modle", "model"), ("Model", "model"), ("requestId", "request_id"), ("meta-data", "metadata")]
    )
    def test_a_field(self, client: FlaskClient, path: str, name: str, near: str) -> None:
        for problem in (
            assert_problem(send(client, path, [(name, "x")]), 400, "invalid_request", field=name),
            assert_problem(send(client, path, [(name, ("a", "x", "text/plain"))]), 400, "invalid_request", field=name),
            assert_problem(send(client, path, [], {name: "x"}), 400, "invalid_request", field=name),
        ):
            assert f"did you mean {near}?" in problem["detail"]

    @pytest.mark.parametrize("path", IMAGES)
    @pytest.mark.parametrize("name", ["file", "images", "image[]", "image2", "Image", "model_file"])
    @pytest.mark.parametrize("size", [1, 2_000_000])
    def test_a_file(self, client: FlaskClient, path: str, name: str, size: int) -> None:
        """Also one that is larger than texts may be: its size is not what is wrong."""
        part = (name, ("a.png", b"\x89PNG" * (size // 4 + 1), "image/png"))
        assert_problem(send(client, path, [part]), 400, "invalid_request", field=name)
        data, content_type = encode_multipart_formdata([part])
        alone = client.post(path, data=data, content_type=content_type)
        problem = assert_problem(alone, 400, "invalid_request", field="image")
        assert f"{name!r} is a file, and the image goes into the part image" in problem["detail"]

    @pytest.mark.parametrize("path", PREDICT)
    def test_two_images(self, client: FlaskClient, path: str) -> None:
        response = client.post(path, **encoded_form([raw_image(), raw_image()], form(metadata=RAW_METADATA)))
        problem = assert_problem(response, 400, "invalid_request", field="image")
        assert "/inference/batch" in problem["expected"]

    @pytest.mark.parametrize("path", IMAGES)
    def test_an_image_as_text(self, client: FlaskClient, path: str) -> None:
        """Also in addition to one that is a file."""
        for response in (
            send(client, path, [("image", "aGk=")]),
            send(client, path, [], {"image": "aGk="}),
            client.post(path, query_string={"image": "aGk="}),
            client.post(path, data={"image": "aGk="}),
        ):
            problem = assert_problem(response, 400, "invalid_request", field="image")
            assert "plain field" in problem["detail"]

    def test_a_part_without_a_name(self, client: FlaskClient) -> None:
        problem = assert_problem(send(client, "/inference", [("", "x")]), 400, "invalid_request")
        assert "no name" in problem["detail"]

    def test_a_command_in_a_batch(self, client: FlaskClient, worker: FakeWorker) -> None:
        body: dict[str, Any] = {"items": [{"object": "s3://inference/a"}]}
        assert client.post("/inference/batch", json=body | {"command": ""}).status_code == 200
        response = client.post("/inference/batch", json=body | {"command": "nonsense"})
        assert_problem(response, 400, "unknown_command", field="command")
        response = client.post("/inference/batch?command=nonsense", json=body)
        assert_problem(response, 400, "unknown_command", field="command")
        assert post_batch(client, [1], command="predict").status_code == 200
        assert_problem(post_batch(client, [1], command="load_new_model"), 400, "unknown_command", field="command")


class TestMembers:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            *(("Model", "model"), ("modle", "model"), ("models", "model"), ("modell", "model"), ("model_name", "model")),
            *(("requestId", "request_id"), ("request-id", "request_id"), ("requst_id", "request_id"), ("dType", "dtype")),
            *(("priorty", "priority"), ("PRIORITY", "priority"), ("deadline", "deadline_s"), ("deadline_ms", "deadline_s")),
            *(("sink", "sinks"), ("Shape", "shape"), ("shpae", "shape"), ("mdoe", "mode")),
        ],
    )
    def test_a_known_one_misspelled(self, client: FlaskClient, app: Any, name: str, meant: str) -> None:
        problem = assert_problem(post(client, raw_form(metadata={name: "x"})), 400, "invalid_metadata", field=f"metadata.{name}")
        assert f"did you mean {meant}?" in problem["detail"]
        assert_problem(post_batch(client, [1], metadata=RAW_METADATA | {name: "x"}), 400, "invalid_metadata")
        items = post_batch(client, [1, 2], metadata=[RAW_METADATA, RAW_METADATA | {name: "x"}], mode="async").json["items"]
        assert [item["error"] and item["error"]["code"] for item in items] == [None, "invalid_metadata"]
        services_of(app).objects.put("a.png", picture("PNG"))
        item = {"object": "s3://inference/a.png"}
        assert_problem(client.post("/inference/batch", json={"items": [item], name: "x"}), 400, "invalid_metadata")
        assert refused_with(client.post("/inference/batch", json={"items": [item | {name: "x"}]})) == "invalid_metadata"

    def test_notes_of_the_clients_own(self, client: FlaskClient, worker: FakeWorker) -> None:
        names = (
            "timestamp device_id image_info type mode_of_x code user node links share request_ip request_time data_type size id"
        )
        notes = dict.fromkeys(names.split(), "x") | {"nested": {"Model": "x", "modle": [1]}, "x" * 5000: 1, "": 1, "模型": 1}
        assert post(client, raw_form(metadata=notes)).status_code == 200
        assert post_batch(client, [1], metadata=RAW_METADATA | notes).json["counts"]["succeeded"] == 1

    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ('{"model": "digits", "model": "none"}', "metadata.model"),
            ('{"note": "a: b", "x": {"y": 1, "y": 2}}', "metadata.y"),
        ],
    )
    def test_one_that_is_there_twice(self, client: FlaskClient, text: str, field: str) -> None:
        assert_problem(post(client, form(raw_image(), metadata=text)), 400, "invalid_metadata", field=field)
        assert_problem(post_batch(client, [1], metadata=text), 400, "invalid_metadata", field=field)
        body = text.replace("{", '{"items": [], ', 1)
        response = client.post("/inference/batch", data=body, content_type="application/json")
        assert_problem(response, 400, "invalid_request", field=field.replace("metadata", "body"))

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
    def test_notes_as_python_writes_them(self, client: FlaskClient, worker: FakeWorker, app: Any, number: str) -> None:
        """`json.dumps` gives these without being asked; in a member that is read they are wrong."""
        notes = f'"temperature": {number}, "more": [{{"x": {number}}}], "big": 99999999999999999999'
        text = f'{{"shape": "8,8,1", "dtype": "float32", {notes}}}'
        assert post(client, form(raw_image(), metadata=text)).status_code == 200
        assert post_batch(client, [1], metadata=text).json["counts"]["succeeded"] == 1
        services_of(app).objects.put("a.png", picture("PNG"))
        body = '{"items": [{"object": "s3://inference/a.png", "temperature": NUMBER}]}'.replace("NUMBER", number)
        response = client.post("/inference/batch", data=body, content_type="application/json")
        assert response.json["items"][0]["error"] is None
        for name in OPTION_NAMES:
            text = '{"shape": "8,8,1", "dtype": "float32", "note": 1, '.replace(f'"{name}"', '"note"') + f'"{name}": {number}}}'
            assert post(client, form(raw_image(), metadata=text)).status_code == 400, name
        text = '{"a": NaN, "model": "digits", "model": "none"}'
        assert_problem(post(client, form(raw_image(), metadata=text)), 400, "invalid_metadata", field="metadata.model")

    def test_colons_and_names_in_other_places(self, client: FlaskClient, worker: FakeWorker) -> None:
        notes = {"at": "12:30:00", "a": {"x": 1}, "b": {"x": ["x:y"]}, "big": 10**18}
        assert post(client, raw_form(metadata=notes)).status_code == 200

    def test_metadata_among_the_members_of_a_body(self, client: FlaskClient) -> None:
        item = {"object": "s3://inference/a"}
        response = client.post("/inference/batch", json={"items": [item], "metadata": {"model": "x"}})
        assert_problem(response, 400, "invalid_request", field="metadata")
        assert refused_with(client.post("/inference/batch", json={"items": [item | {"metadata": {}}]})) == "invalid_metadata"


class TestCommands:
    @pytest.mark.parametrize("path", [*PREDICT, CONTROLLER])
    @pytest.mark.parametrize("kind", ["urlencoded", "multipart", "file", "json", "query"])
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"command": "load_new_model", "model_id": "digits", "modelid": "x"}, "modelid"),
            ({"command": "load_new_model", "model_id": "digits", "weights_url": "x"}, "weights_url"),
            ({"command": "change_ensemble_mode", "ensemble_mode": "true", "metadata": "{}"}, "metadata"),
            ({"command": "load_new_model", "model_id": "none"}, "model_id"),
            ({"command": "load_new_weights", "weights_url": "w", "model": "digits", "model_id": "none"}, "model_id"),
        ],
    )
    def test_what_none_has(self, client: FlaskClient, path: str, kind: str, fields: dict[str, str], field: str) -> None:
        match kind:
            case "json":
                response = client.post(path, json=fields)
            case "query":
                response = client.post(path, query_string=fields)
            case "urlencoded":
                response = client.post(path, data=fields)
            case _:
                parts = [(name, ("a", value, "text/plain") if kind == "file" else value) for name, value in fields.items()]
                data, content_type = encode_multipart_formdata(parts)
                response = client.post(path, data=data, content_type=content_type)
        assert response.status_code in (400, 404), response.data
        assert response.json["field"] == field

    @pytest.mark.parametrize("path", [*PREDICT, CONTROLLER])
    def test_an_image(self, client: FlaskClient, path: str) -> None:
        fields = {"command": "load_new_model", "model_id": "digits"}
        assert_problem(client.post(path, **encoded_form([b"1"], fields)), 400, "invalid_request", field="image")
        assert_problem(client.post(path, data=fields | {"image": "1"}), 400, "invalid_request", field="image")

    @pytest.mark.parametrize("path", [*PREDICT, CONTROLLER])
    def test_a_field_of_body_and_query(self, client: FlaskClient, path: str) -> None:
        fields = {"command": "load_new_model", "model_id": "none"}
        assert_problem(client.post(path, data=fields, query_string={"model_id": "digits"}), 400, "invalid_request")
        assert_problem(client.post(path, data=fields, query_string=fields), 404, "model_not_found")

    @pytest.mark.parametrize("path", [*PREDICT, CONTROLLER])
    def test_a_member_that_is_there_twice(self, client: FlaskClient, path: str) -> None:
        body = '{"command": "load_new_model", "model_id": "digits", "model_id": "none"}'
        response = client.post(path, data=body, content_type="application/json")
        assert_problem(response, 400, "invalid_request", field="body.model_id")


def test_an_image_without_a_file_name_is_a_file(client: FlaskClient, worker: FakeWorker) -> None:
    """Node's form-data, `curl -F "image=<photo.png"` and `files={"image": (None, data)}` send it like this."""
    for content_type in (None, "image/png", "application/octet-stream"):
        part = ("image", (None, picture("PNG"), content_type) if content_type else (None, picture("PNG")))
        data, kind = encode_multipart_formdata([part])
        data = data.replace(b'; filename="None"', b"")
        for path in IMAGES:
            assert client.post(path, data=data, content_type=kind).status_code == 200, content_type


@pytest.mark.parametrize("path", IMAGES)
@pytest.mark.parametrize("where", ["fields", "metadata", "query"])
def test_bytes_of_an_array_that_look_like_text(client: FlaskClient, worker: FakeWorker, path: str, where: str) -> None:
    """Without a file name, as `files={"image": (None, data)}` sends them; the message for a plain field would be wrong."""
    options = {"shape": "8,8,1", "dtype": "uint8"}
    fields = list(options.items()) if where == "fields" else []
    if where == "metadata":
        fields.append(("metadata", orjson.dumps(options).decode()))
    data, content_type = encode_multipart_formdata([("image", "d" * 64), *fields])
    response = client.post(path, data=data, content_type=content_type, query_string=options if where == "query" else {})
    assert response.status_code == 200, response.data
    assert all(item["error"] is None for item in response.json.get("items", []))
    assert_problem(client.post(path, data={"image": "d" * 64} | options), 400, "invalid_request", field="image")


def test_a_form_of_two_kinds_of_parts_with_a_stream(client: FlaskClient, worker: FakeWorker) -> None:
    data = form(None, metadata=RAW_METADATA) | {"image": (BytesIO(raw_image()), "größe.raw")}
    assert post(client, data).status_code == 200
