"""A model's code in the predictor process: what it gets, what it may return, and what an error in it does."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from support import graph_files
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import PredictorCrashed, PredictorProcess
from inference.models.predictor.custom_code import MAX_CUSTOM_BYTES, ModelCode
from inference.models.predictor.protocol import Failed
from inference.models.spec import ModelSpec

HEIGHT, WIDTH, CLASSES = graph_files.HEIGHT, graph_files.WIDTH, graph_files.CLASSES

HEAD = "import numpy as np\nclass Flowers:\n"
#: the first pixel chooses what happens
BY_PIXEL = """
import os, sys, time
import numpy as np

class Flowers:
    def preprocess(self, image):
        chosen = int(image[0, 0, 0])
        image[:] = 0  # a copy: nobody else sees it
        if chosen == 1:
            raise ValueError("no flower")
        if chosen == 2:
            sys.exit("stop")
        if chosen == 3:
            time.sleep(600)
        if chosen == 4:
            os._exit(9)
        return np.full((3, 6, 8), chosen / 255)

    def postprocess(self, vector):
        if vector.argmax() < 0:
            raise ValueError
        answer = {"sum": float(vector.sum())}
        vector[:] = 0
        return answer
"""


def described(folder: Path, source: str, **changes: Any) -> ModelSpec:
    (folder / "classifier.py").write_text(source, encoding="utf-8")
    graph_files.save(graph_files.classifier(), folder)
    keys = {"shape": [HEIGHT, WIDTH, 3], "layout": "nchw", "dtype": "float32"}
    return spec_of(folder, **{"name": "flowers", "file": "m.onnx", "input": keys, "code": "classifier.py:Flowers"} | changes)


def loaded(folder: Path, body: str, **changes: Any) -> ModelCode:
    code = ModelCode.load(described(folder, HEAD + body, **changes))
    assert code is not None
    return code


def preprocessed(folder: Path, returned: str) -> tuple[NDArray[np.float32], dict[int, Failed]]:
    """Two images, of which the first is given to the expression `returned`; the second is fine."""
    good = "np.ones((3, 6, 8), np.float32)"
    code = loaded(folder, f"    def preprocess(self, image):\n        return {good} if image.any() else {returned}\n")
    out = np.full((3, 3, HEIGHT, WIDTH), 7, np.float32)
    images = [np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.ones((HEIGHT, WIDTH, 3), np.uint8)]
    failures = code.preprocess(images, out)
    assert (out[1] == 1).all()
    assert (out[2] == 7).all()
    return out[0], failures


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool", "'>f8'"])
def test_values_that_fit_the_graph_are_converted(tmp_path: Path, dtype: str) -> None:
    values, failures = preprocessed(tmp_path, f"np.ones((3, 6, 8), {dtype if '>' in dtype else repr(dtype)})")
    assert failures == {}
    assert (values == 1).all()


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("None", "TypeError: it returned NoneType, expected an array"),
        ("[[1]]", "TypeError: it returned list, expected an array"),
        ("image", r"ValueError: it returned an array of shape \(6, 8, 3\), expected \(3, 6, 8\)"),
        ("np.ones((3, 6, 8), complex)", "TypeError: it returned complex128 values, expected float32"),
        ("np.full((3, 6, 8), None)", "TypeError: it returned object values"),
        ("np.full((3, 6, 8), np.nan)", "ValueError: it returned values that are not finite"),
        ("np.full((3, 6, 8), 1e300)", "ValueError: it returned values that are not finite"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("exit(3)", "SystemExit: 3"),
        ("open('/no/such')", "FileNotFoundError: .*/no/such"),
    ],
)
def test_anything_else_is_the_error_of_one_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, returned: str, problem: str
) -> None:
    with caplog.at_level(logging.ERROR):
        values, failures = preprocessed(tmp_path, returned)
    assert (values == 0).all()
    assert list(failures) == [0]
    failed = failures[0]
    assert re.match(f"preprocess of Flowers raised {problem}", failed.message)
    assert "/" not in (failed.public or "/")
    assert failed.message.partition(":")[0] in (failed.public or "")
    assert caplog.records[0].exc_info is not None


def postprocessed(folder: Path, returned: str) -> Any:
    code = loaded(folder, f"    def postprocess(self, vector):\n        return {returned}\n")
    (result,) = code.postprocess(np.array([[0.25, 0.75]], np.float32), {})
    return result


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ("{}", {}),
        (
            "{'best': vector.max(), 'all': vector, 'n': [1, None, True, 'ü']}",
            {"best": 0.75, "all": [0.25, 0.75], "n": [1, None, True, "ü"]},
        ),
        ("{'nan': float('nan')}", {"nan": None}),
    ],
)
def test_a_dict_becomes_json(tmp_path: Path, returned: str, answer: dict[str, Any]) -> None:
    assert orjson.loads(postprocessed(tmp_path, returned)) == answer


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("None", "TypeError: it returned NoneType, expected a dict"),
        ("[1]", "TypeError: it returned list, expected a dict"),
        ("{1: 2}", "must be str"),
        ("{'a': object()}", "not JSON serializable: object"),
        ("{'a': 2 ** 60}", "Integer exceeds 53-bit range"),
        ("{'a': 'x' * 70000}", f"more than {MAX_CUSTOM_BYTES}"),
        (r"{'\0': 1}", "null character"),
        (r"{'a': '\ud800'}", "str is not valid UTF-8"),
        ("exit()", "SystemExit"),
    ],
)
def test_another_answer_is_the_error_of_the_image(tmp_path: Path, returned: str, problem: str) -> None:
    failed = postprocessed(tmp_path, returned)
    assert isinstance(failed, Failed)
    assert failed.message.startswith("postprocess of Flowers raised ")
    assert problem in failed.message


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "import no_such_package\n" + HEAD + "    def preprocess(self, image): ...",
            "cannot be imported: ModuleNotFoundError: No module",
        ),
        (HEAD + "    def preprocess(self, image): ...\nraise SystemExit(4)", "cannot be imported: SystemExit: 4"),
        (HEAD + "    def preprocess(self, image): ...\ndel Flowers", "has no such class after it has run"),
        (HEAD + "    def preprocess(self, image): ...\nFlowers = 3", "has no such class after it has run"),
        (
            HEAD + "    def preprocess(self, image): ...\n    def __init__(self, folder): ...",
            "cannot be created without arguments: TypeError",
        ),
        (
            "class Base:\n    def preprocess(self, image): ...\nclass Flowers(Base):\n    def postprocess(self, vector): ...",
            "must define preprocess in its own body",
        ),
    ],
)
def test_a_class_that_cannot_be_used_is_named_with_its_key_and_file(tmp_path: Path, source: str, problem: str) -> None:
    spec = described(tmp_path, source)
    with pytest.raises(ConfigurationError, match=r"flowers: code: classifier\.py:Flowers ") as caught:
        ModelCode.load(spec)
    assert problem in caught.value.detail
    assert (caught.value.field, str(tmp_path) in caught.value.public) == ("code", False)


def test_a_file_that_has_changed_since_it_was_found_does_not_run(tmp_path: Path) -> None:
    spec = described(tmp_path, HEAD + "    def preprocess(self, image): ...")
    (tmp_path / "classifier.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="has changed since the service found it"):
        ModelCode.load(spec)


def test_the_file_finds_what_is_beside_it_and_leaves_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "offset.txt").write_text("5", encoding="utf-8")
    (tmp_path / "helper.py").write_text("", encoding="utf-8")
    head = "from pathlib import Path\nfrom dataclasses import dataclass\n@dataclass\nclass Flowers:\n"
    body = (
        "    def postprocess(self, vector):\n        return {'offset': int((Path(__file__).parent / 'offset.txt').read_text())}\n"
    )
    code = ModelCode.load(described(tmp_path, head + body))
    assert code is not None
    assert code.postprocess(np.zeros((1, 2), np.float32), {}) == (b'{"offset":5}',)
    assert not (tmp_path / "__pycache__").exists()
    with pytest.raises(ConfigurationError, match="No module named 'helper'"):
        ModelCode.load(described(tmp_path, f"import helper\n{head}{body}"))


def test_a_model_without_code_loads_none(tmp_path: Path) -> None:
    assert ModelCode.load(described(tmp_path, "", code=None)) is None


@contextmanager
def predictor(spec: ModelSpec, timeout_s: float = 60) -> Iterator[tuple[PredictorProcess, Callable[[int, int], None]]]:
    """A running process, and a function that fills a slot with a pixel's value."""
    arena = SlotArena(spec.image_input, 4)

    def fill(slot: int, pixel: int) -> None:
        arena.images[slot] = pixel

    process = PredictorProcess({spec.name: (spec, arena)}, max_batch_size=4, predict_timeout_s=timeout_s, load_timeout_s=60)
    try:
        assert process.start(lambda: False)
        yield process, fill
    finally:
        process.stop()
        assert arena._file is not None
        arena._file.close()


@pytest.mark.process
def test_an_image_whose_code_raises_changes_no_other_answer_of_its_batch(tmp_path: Path) -> None:
    with predictor(described(tmp_path, BY_PIXEL)) as (process, fill):
        fill(0, 100), fill(1, 1), fill(2, 2), fill(3, 200)
        for _ in range(2):  # what the code does to its image does not stay
            predictions = process.predict("flowers", [3, 1, 2, 0])
            first, raised, left, last = predictions.custom
            assert isinstance(raised, Failed)
            assert raised.message == "preprocess of Flowers raised ValueError: no flower"
            assert isinstance(left, Failed)
            assert left.message == "preprocess of Flowers raised SystemExit: stop"
            for slot, values, custom in ((3, predictions.values[0], first), (0, predictions.values[3], last)):
                alone = process.predict("flowers", [slot])
                np.testing.assert_allclose(values, alone.values[0], atol=1e-6)
                assert isinstance(custom, bytes)
                assert orjson.loads(custom)["sum"] == pytest.approx(1)
                assert values.sum() == pytest.approx(1)


@pytest.mark.process
@pytest.mark.parametrize(("pixel", "end"), [(3, "hung for 1 s"), (4, "died: exit code 9")])
def test_code_that_never_ends_or_ends_the_process_is_a_crash(tmp_path: Path, pixel: int, end: str) -> None:
    with predictor(described(tmp_path, BY_PIXEL, predict_timeout_s=1)) as (process, fill):
        fill(0, pixel)
        with pytest.raises(PredictorCrashed, match=end):
            process.predict("flowers", [0])


@pytest.mark.process
def test_a_class_with_postprocess_alone_gets_images_as_the_description_says(tmp_path: Path) -> None:
    source = HEAD + "    def postprocess(self, vector):\n        return {'classes': len(vector)}\n"
    spec, plain = described(tmp_path, source), described(tmp_path, source, code=None)
    answers = []
    for each in (spec, plain):
        with predictor(each) as (process, fill):
            fill(0, 9)
            answers.append(process.predict("flowers", [0]))
    np.testing.assert_array_equal(answers[0].values, answers[1].values)
    assert (answers[0].custom, answers[1].custom) == ((b'{"classes":4}',), ())
