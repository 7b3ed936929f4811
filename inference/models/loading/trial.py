"""Trial of a model with a few images: whether it fits its description, and whether another runtime answers the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.errors import ConfigurationError
from inference.models.loading.model import finish
from inference.models.loading.outputs import Bounds, check_outputs, trial_batches
from inference.models.loading.problems import reason
from inference.models.spec import Activation, Layout, ModelSpec, Task
from inference.runtime.public_text import with_reason

#: Maximum difference between LiteRT's and TensorFlow's outputs for trial images: absolute, or relative to the value.
LITE_TOLERANCE = 1e-5

#: Runs a model on (n, *array_shape) in the description's dtype; returns the output with the classes.
Run = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Trial:
    images: NDArray[Any]
    #: the values of the answers for them, (n, classes) float32: probabilities, except rows that are not finite, and with the
    #: activation `none`
    answers: NDArray[np.float32]
    #: whether the model has one output unit, the probability of the second of two classes
    is_binary: bool

    @property
    def output_size(self) -> int:
        return int(self.answers.shape[1])


def check_input(spec: ModelSpec, shapes: Sequence[tuple[int | None, ...]]) -> None:
    """Check the shapes of a model's inputs. Raises ConfigurationError.

    Args:
        shapes: for each input (batch, *array_shape), None for any size.
    """
    files = named_files(spec)
    if len(shapes) != 1:
        raise ConfigurationError(f"{spec.name}: the model in {files} has {len(shapes)} inputs, expected 1")
    if len(shapes[0]) != 1 + len(spec.input.shape):
        raise ConfigurationError(
            f"{spec.name}: the model in {files} takes {len(shapes[0])} dimensions, {list(shapes[0])}, expected 4: batch, height,"
            " width and channels",
            field="input.shape",
        )
    shape = list(shapes[0][1:])
    if not _fits(shape, spec.input.array_shape):
        said = f"input.shape {list(spec.input.shape)}"
        if spec.input.layout is Layout.NCHW:
            said += f" with input.layout nchw, which is {list(spec.input.array_shape)}"
        other = Layout.NHWC if spec.input.layout is Layout.NCHW else Layout.NCHW
        has_other = _fits(shape, spec.input.model_copy(update={"layout": other}).array_shape)
        hint = f": set input.layout to {other}" if has_other else ""
        raise ConfigurationError(
            f"{spec.name}: the description says {said}, the model in {files} takes {shape}{hint}",
            field="input.layout" if has_other else "input.shape",
        )


def find_output(spec: ModelSpec, names: Sequence[str]) -> int:
    """Find the number of the output that holds the classes.

    Args:
        names: the model's outputs, in order.

    Raises:
        ConfigurationError: the model has several outputs and `output.name` is not set, or none of that name.
    """
    name = spec.output.name
    if name in names:
        return names.index(name)
    if name is None and len(names) == 1:
        return 0
    found = f"{spec.name}: the model in {named_files(spec)} has"
    problem = f"no output {name}; it has" if name is not None else f"{len(names)} outputs:"
    raise ConfigurationError(
        f"{found} {problem} {', '.join(names) or 'none'}; set output.name to the one with the classes", field="output.name"
    )


def try_model(spec: ModelSpec, run: Run, find_bounds: Callable[[], Bounds], step: float = 0.0) -> Trial:
    """Run a model on trial images and check its outputs.

    Args:
        find_bounds: finds the bounds of the model's output for any image; called only if the trial's outputs do not suffice.
        step: difference between two values of a quantised output.

    Raises:
        ConfigurationError: the model fails, or its outputs do not fit the description or the labels.
    """
    batches = trial_batches(spec.input)
    outputs = _predict_batches(run, batches, spec)
    activation = spec.output.activation
    is_binary = outputs.shape[1] == 1 and spec.task is Task.SINGLE_LABEL and activation is not Activation.NONE
    try:
        check_outputs(outputs, spec, find_bounds, step)
    except ConfigurationError as error:
        detail = f"{spec.name}: the model in {named_files(spec)} {error.detail}"
        raise ConfigurationError(detail, field=error.field) from error
    trial = Trial(np.concatenate(batches), finish(outputs, activation, is_binary=is_binary), is_binary)
    check_labels(spec, trial.output_size, is_binary=is_binary)
    return trial


def is_equal(predict: Callable[[NDArray[Any]], ArrayLike], trial: Trial) -> bool:
    """Whether `predict` returns the trial's outputs in batches of several sizes; rows that are not finite are ignored."""
    images, finite = trial.images, np.isfinite(trial.answers).all(axis=1)
    try:
        answers = [np.asarray(predict(images)), np.concatenate([predict(images[:1]), predict(images[1:])])]
    except (RuntimeError, ValueError):
        return False
    return all(
        answer.shape == trial.answers.shape
        and np.allclose(answer[finite], trial.answers[finite], rtol=LITE_TOLERANCE, atol=LITE_TOLERANCE)
        for answer in answers
    )


def check_labels(spec: ModelSpec, output_size: int, *, is_binary: bool) -> None:
    """Check that the description has a label for each class, or none, and the same for thresholds. Raises ConfigurationError."""
    if isinstance(spec.threshold, tuple) and len(spec.threshold) != output_size:
        raise ConfigurationError(
            f"{spec.name}: there are {len(spec.threshold)} thresholds, and the model in {named_files(spec)} has"
            f" {output_size} classes",
            field="threshold",
        )
    if not spec.labels or len(spec.labels) == output_size:
        return
    why = ": its one output unit is the probability of the second, and the first is the complement" if is_binary else ""
    raise ConfigurationError(
        f"{spec.name}: there are {len(spec.labels)} labels, and the model in {named_files(spec)} has {output_size} classes{why}",
        field="labels",
    )


@contextmanager
def invalid_model_on_error(spec: ModelSpec) -> Iterator[None]:
    """Raise ConfigurationError, with the reason, for any error of the model's code."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        sentence = f"{spec.name}: the model in {named_files(spec)} fails on images of shape {list(spec.input.shape)}"
        why = reason(error)
        raise ConfigurationError(f"{sentence}: {why}", public=with_reason(sentence, why)) from error


def named_files(spec: ModelSpec) -> str:
    return " and ".join(file.location for file in spec.local_files.values())


def _fits(shape: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return all(size in {None, length} for size, length in zip(shape, wanted, strict=True))


def _predict_batches(run: Run, batches: Sequence[NDArray[Any]], spec: ModelSpec) -> NDArray[np.float32]:
    """Run trial images, (n, outputs): the shapes in the file do not show that each image gets an output of its own."""
    answers = [_predict_batch(run, images, spec) for images in batches]
    widths = sorted({answer.shape[1] for answer in answers})
    if len(widths) > 1:
        found = f"{' or '.join(map(str, widths))} values for an image"
    elif answers[0].dtype != np.float32:
        found = f"{answers[0].dtype} values"
    else:
        return np.concatenate(answers)
    raise ConfigurationError(
        f"{spec.name}: the model in {named_files(spec)} must return one probability for each class;"
        f" for trial images it returned {found}"
    )


def _predict_batch(run: Run, images: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    with invalid_model_on_error(spec):
        output = run(images)
    if output.ndim not in {1, 2} or len(output) != len(images) or 0 in output.shape:
        raise ConfigurationError(
            f"{spec.name}: the model in {named_files(spec)} must have an output of shape (n, classes); for {len(images)}"
            f" images it returned {output.shape}"
        )
    return output.reshape(len(images), -1)
