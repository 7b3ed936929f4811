"""Class of a model's code, which runs in the predictor process before and behind the graph.

An exception in one of its methods is the error of one image; the rest of the batch goes on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from types import ModuleType
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.model_code import POSTPROCESS, PREPROCESS, CodeLocation
from inference.models.predictor.protocol import CustomResult, Failed
from inference.models.spec import LocalFile, ModelSpec
from inference.runtime.public_text import public_exception

logger = logging.getLogger(__name__)

#: Limit of the JSON text that `postprocess` returns for one image.
MAX_CUSTOM_BYTES = 2**16

#: BSON has no larger integers and JavaScript no more exact ones, so that a document fits every sink.
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_STRICT_INTEGER
#: Exceptions that fail one image, or the start. A `sys.exit` in the code does not end the process.
_ERRORS = (Exception, SystemExit)


class ModelCode:
    """Instance of the class that the key `code` names.

    Raises:
        ConfigurationError: the file has changed since it was found, fails when it is imported, has no such class, or the class
            cannot be created without arguments.
    """

    def __init__(self, spec: ModelSpec, location: CodeLocation, file: LocalFile) -> None:
        self._name = location.class_name
        self._model = spec.name
        self._shape, self._dtype = spec.input.array_shape, spec.input.numpy_dtype
        instance = _create(spec.name, location, file)
        self._preprocess: Callable[[NDArray[np.uint8]], Any] | None = getattr(instance, PREPROCESS, None)
        if callable(self._preprocess) != spec.has_preprocess:
            raise _wrong(spec.name, location, f"cannot be used: it must define {PREPROCESS} in its own body, as a method")
        self._postprocess: Callable[[NDArray[np.float32]], Any] | None = getattr(instance, POSTPROCESS, None)

    @staticmethod
    def load(spec: ModelSpec) -> ModelCode | None:
        """Load the code of a model; None if it has none. Raises ConfigurationError."""
        if spec.code is None or spec.code_file is None:
            return None
        return ModelCode(spec, CodeLocation.parse(spec.code), spec.code_file)

    def preprocess(self, images: Sequence[NDArray[np.uint8]], out: NDArray[Any]) -> dict[int, Failed]:
        """Write the graph's input for each image into `out`; returns the failures by number of the image, whose input is zeros.

        Args:
            images: (H, W, C) uint8; the code gets copies.
            out: (at least as many images, *array_shape) in the graph's dtype.
        """
        failures = {}
        for number, image in enumerate(images):
            try:
                out[number] = self._checked_input(self._call(self._preprocess, image))
            except _ERRORS as error:
                out[number] = 0
                failures[number] = self._failure(PREPROCESS, error)
        return failures

    def postprocess(self, vectors: NDArray[np.float32], failures: dict[int, Failed]) -> tuple[CustomResult, ...]:
        """Return the JSON text of each image's dict, or its failure; None if the class has no `postprocess`.

        Args:
            vectors: (n, classes).
            failures: images whose `preprocess` failed, by their number.
        """
        return tuple(failures.get(number) or self._custom(vector) for number, vector in enumerate(vectors))

    def _custom(self, vector: NDArray[np.float32]) -> CustomResult:
        if self._postprocess is None:
            return None
        try:
            return _to_json(self._call(self._postprocess, vector))
        except _ERRORS as error:
            return self._failure(POSTPROCESS, error)

    def _call(self, method: Callable[[NDArray[Any]], Any] | None, values: NDArray[Any]) -> Any:
        return method(values.copy()) if method is not None else values

    def _checked_input(self, value: Any) -> NDArray[Any]:
        """Check the return value of `preprocess`. Raises TypeError, ValueError."""
        if not isinstance(value, np.ndarray):
            raise TypeError(f"it returned {type(value).__name__}, expected an array")
        if value.shape != self._shape:
            raise ValueError(f"it returned an array of shape {value.shape}, expected {self._shape}")
        if not np.can_cast(value.dtype, self._dtype, "same_kind"):
            raise TypeError(f"it returned {value.dtype} values, expected {self._dtype} (input.dtype)")
        with np.errstate(over="ignore"):  # too large values become infinite
            array = value.astype(self._dtype, copy=False)
        if not np.isfinite(array).all():
            raise ValueError("it returned values that are not finite")
        return array

    def _failure(self, method: str, error: BaseException) -> Failed:
        logger.error("%s: %s of %s failed for an image", self._model, method, self._name, exc_info=error)
        said = f"{method} of {self._name} raised"
        return Failed(f"{said} {type(error).__name__}: {error}", f"{said} {public_exception(error)}")


def _to_json(value: Any) -> bytes:
    """Serialize the return value of `postprocess`. Raises TypeError, ValueError."""
    if not isinstance(value, dict):
        raise TypeError(f"it returned {type(value).__name__}, expected a dict")
    text = orjson.dumps(value, option=_JSON_OPTIONS)
    if len(text) > MAX_CUSTOM_BYTES:
        raise ValueError(f"it returned {len(text)} bytes of JSON, more than {MAX_CUSTOM_BYTES}")
    if b"\\u0000" in text:
        raise ValueError("it returned a text with a null character")
    return text


def _create(model: str, location: CodeLocation, file: LocalFile) -> object:
    try:
        kind = getattr(_import(model, file), location.class_name, None)
    except _ERRORS as error:
        raise _wrong(model, location, "cannot be imported", error) from error
    if not isinstance(kind, type):
        raise _wrong(model, location, "cannot be used: the file has no such class after it has run")
    try:
        instance: object = kind()
    except _ERRORS as error:
        raise _wrong(model, location, "cannot be created without arguments", error) from error
    return instance


def _wrong(model: str, location: CodeLocation, problem: str, cause: BaseException | None = None) -> ConfigurationError:
    said = f"{model}: code: {location} {problem}"
    if cause is None:
        return ConfigurationError(said, field="code")
    logger.error("%s", said, exc_info=cause)
    return ConfigurationError(
        f"{said}: {type(cause).__name__}: {cause}", public=f"{said}: {public_exception(cause)}", field="code"
    )


def _import(model: str, file: LocalFile) -> ModuleType:
    """Run the file as a module of its own, of the very bytes that belong to the model's digest: no `__pycache__` is read."""
    source = file.path.read_bytes()
    if sha256(source).hexdigest() != file.sha256:
        raise ValueError(f"{file.path.name} has changed since the service found it; start it again")
    module = ModuleType(f"model_code_{model}")
    module.__file__ = str(file.path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up
    exec(compile(source, str(file.path), "exec"), module.__dict__)  # noqa: S102 the model's own code, from an allowed folder
    return module
