"""Reading of long JSON bodies: a long text in base64 is passed over, not examined."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from flask import Flask

from api.forms import json_body
from api.forms.json_body import count_values, read_json
from inference.errors import InvalidMetadata

BASE64 = "QUJD" * 2**19


@pytest.mark.parametrize("convert", [str, str.encode])
@pytest.mark.parametrize("padding", ["", BASE64])
def test_values_are_counted_up_to_a_limit(convert: Any, padding: str) -> None:
    text = convert('{"image":"' + padding + '","items":[1,2,{"a":3}]}')
    assert count_values(text, 100) == 7
    assert count_values(text, 5) == 5


def test_a_document_of_few_objects_is_not_written_to_see_how_deep_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "_is_deeper", None)
    assert read_json('{"image":{"base64":"' + BASE64 + '"}}', "body", "x") == {"image": {"base64": BASE64}}


@pytest.mark.parametrize("padding", ["", BASE64])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_deep_ones_are_refused(start: str, end: str, padding: str) -> None:
    depth = 300
    text = start * depth + f'"{padding}"' + end * depth
    with pytest.raises(InvalidMetadata, match="nested too deeply"):
        read_json(text, "metadata", "x")


@pytest.mark.parametrize("padding", ["", BASE64, ":" * len(BASE64)])
def test_a_member_twice_is_found_beside_a_long_text(padding: str) -> None:
    assert read_json(f'{{"a":1,"b":"{padding}"}}', "metadata", "x") == {"a": 1, "b": padding}
    with pytest.raises(InvalidMetadata, match="twice"):
        read_json(f'{{"a":1,"b":"{padding}","a":2}}', "metadata", "x")


def test_the_limit_of_the_depth_is_that_of_the_settings() -> None:
    app = Flask("x")
    app.config["MAX_JSON_DEPTH"] = 20
    with app.app_context():
        read_json("[" * 20 + "]" * 20 + " " * 9, "metadata", "x")
        read_json('[{"a":[]},' * 18 + "[1]" + "]" * 18, "metadata", "x")
        with pytest.raises(InvalidMetadata, match=r"more than 20 levels \(limits\.max_json_depth\)"):
            read_json("[" * 21 + "]" * 21, "metadata", "x")


def test_every_depth_that_the_settings_allow_can_be_written() -> None:
    document: Any = 1
    for _ in range(200):
        document = [document]
    orjson.dumps(document)
