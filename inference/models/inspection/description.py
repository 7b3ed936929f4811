"""Description of an inspected model: the document of a model.yaml, from the facts of its file and the choices of a user."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from inference.errors import ConfigurationError
from inference.models.inspection.facts import FileFormat, ModelFacts, OutputFacts, Size
from inference.models.inspection.suffixes import SUFFIXES

_SCALES = """--scale 1/255     values from 0 to 1
  --scale -1..1     values from -1 to 1
  --scale imagenet  mean and deviation of ImageNet, as torchvision's models take them
  --scale none      pixels as they are, 0 to 255"""
_MAX_NAME_LENGTH = 64
_CHANNELS = (1, 3)
#: Dimensions of a batch of images.
_RANK = 4
_PIXEL_TYPE = "uint8"
#: Real values of a quantised input for each scale, and the allowed difference as a share of their distance.
_QUANTISED_RANGES = {"none": (0.0, 255.0), "1/255": (0.0, 1.0), "-1..1": (-1.0, 1.0)}
_RANGE_TOLERANCE = 0.05
#: Formats whose reader converts an image to the type that the graph takes.
_CASTING = (FileFormat.KERAS, FileFormat.H5, FileFormat.SAVED_MODEL)
_PROBABILITIES = ("softmax", "sigmoid")


@dataclass(frozen=True)
class Choices:
    """Keys of a description that the user chose; None: as the file says, or the default.

    Args:
        size: height and width in pixels, for a model that leaves them open.
        output: name of the output with the classes, for a model with several.
    """

    name: str | None = None
    labels: str | None = None
    scale: str | None = None
    size: tuple[int, int] | None = None
    layout: str | None = None
    channel_order: str | None = None
    resize: str | None = None
    output: str | None = None
    activation: str | None = None
    threshold: float | None = None

    @property
    def given(self) -> list[str]:
        """Names of the choices that were made, as options of the command line."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class LabelSource:
    """Labels as keys of a description, and where they are from, for people."""

    keys: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "no labels"


@dataclass(frozen=True)
class Described:
    #: content of a model.yaml
    document: Mapping[str, Any]
    #: number of classes, if the file says so
    classes: int | None
    #: one line for people, without the name
    summary: str
    #: where the scaling of the pixels is from
    scaling: str


def model_name(file: str) -> str:
    """Make a model's name from that of its file: "My Flowers.keras" becomes "my-flowers"."""
    path = PurePosixPath(file)
    stem = path.stem if path.suffix.lower() in (*SUFFIXES, ".zip") else file
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._")[:_MAX_NAME_LENGTH].rstrip("-._")
    return name or "model"


def describe(facts: ModelFacts, *, file: str, location: str, choices: Choices, labels: LabelSource) -> Described:
    """Describe a model.

    Args:
        file: the file's name, for messages.
        location: the path or ``s3://BUCKET/KEY`` for the document.

    Raises:
        ConfigurationError: the file leaves a choice open, or is not the model of one kind of image.
    """
    shape, layout = _image_shape(facts, file, choices)
    found = _chosen_output(facts, file, choices)
    scale, scaling = _scaling(facts, choices) or ("", "")
    questions = [] if scale else [_scaling_question(facts, file)]
    if found.activation not in {None, *_PROBABILITIES} and choices.activation is None:
        questions.append(_activation_question(found, file))
    if questions:
        raise ConfigurationError("\n".join(questions))
    task, classes = _task(found, file, choices)
    image: dict[str, Any] = {"shape": list(shape)}
    if layout != "nhwc":
        image["layout"] = layout
    image |= {key: value for key in ("channel_order", "resize") if (value := getattr(choices, key)) is not None}
    image["scale"] = scale
    if scale == "none":
        image["dtype"] = "uint8" if facts.format in _CASTING or facts.input_dtype != "float32" else "float32"
    image["raw"] = "pixels"
    document: dict[str, Any] = {"name": choices.name or model_name(file), "version": "1", "file": location, **labels.keys}
    if choices.threshold is not None:
        document["threshold"] = choices.threshold
    document["input"] = image
    output = {"name": choices.output, "activation": choices.activation}
    if any(output.values()):
        document["output"] = {key: value for key, value in output.items() if value is not None}
    if task is not None:
        document["task"] = task
    counted = f"{classes} classes{', several for an image' if task else ''}" if classes else "classes not in the file"
    size = f"{'x'.join(map(str, shape))}{'' if layout == 'nhwc' else f' {layout}'}"
    summary = f"{facts.format}, images {size} {facts.input_dtype}, {counted}{_ending(found, choices)}, {labels.origin}, {scaling}"
    return Described(document, classes, summary, scaling)


def _ending(found: OutputFacts, choices: Choices) -> str:
    """Name the output that was chosen, and the function that gives the answers."""
    name = f" in the output {choices.output}" if choices.output else ""
    activation = choices.activation or found.activation
    return f"{name} ({activation})" if activation else name


def _image_shape(facts: ModelFacts, file: str, choices: Choices) -> tuple[tuple[int, int, int], str]:
    """Find height, width, channels, and the layout in the graph."""
    if len(facts.input_shapes) != 1:
        raise ConfigurationError(f"{file} has {len(facts.input_shapes)} inputs; a model of images has one")
    shape = facts.input_shapes[0]
    if len(shape) != _RANK:
        raise ConfigurationError(f"{file} takes {_shown(shape)}, not a batch of images with height, width and channels")
    layout = choices.layout or _layout(shape, facts.format)
    height, width, channels = (shape[2], shape[3], shape[1]) if layout == "nchw" else (shape[1], shape[2], shape[3])
    if channels not in _CHANNELS:
        advice = "; --layout nchw if the channels come first" if layout == "nhwc" and shape[1] is None else ""
        raise ConfigurationError(f"{file} takes {_shown(shape)}, images of {channels or 'open'} channels, not of 1 or 3{advice}")
    if height is None or width is None:
        if choices.size is None:
            raise ConfigurationError(
                f"{file} takes images of any size, {_shown(shape)}; say the one it was trained with:"
                f" --size HEIGHTxWIDTH, such as --size 224x224 (in a model.yaml: input.shape)"
            )
        height, width = height or choices.size[0], width or choices.size[1]
    if choices.size not in {None, (height, width)}:
        raise ConfigurationError(f"{file} takes images of {height}x{width}; leave --size out")
    return (height, width, channels), layout


def _layout(shape: tuple[Size, ...], file_format: FileFormat) -> str:
    if shape[1] in _CHANNELS and (shape[3] not in _CHANNELS or file_format is FileFormat.ONNX):
        return "nchw"
    return "nhwc"


def _scaling(facts: ModelFacts, choices: Choices) -> tuple[str, str] | None:
    """Choose `input.scale`, and say where it is from; None if neither the file nor the user says it."""
    found = facts.scaling
    if choices.scale == "none":
        return "none", "pixels as they are (--scale)"
    if choices.scale is not None:
        doubt = f", although {found.origin} scales them too" if found is not None and found.fits_pixels else ""
        return choices.scale, f"pixels scaled by --scale {choices.scale}{doubt}"
    if facts.input_dtype == _PIXEL_TYPE:
        return "none", f"pixels as they are (the input is {facts.input_dtype})"
    if (quantised := _quantised_scale(facts.input_range)) is not None:
        return quantised, f"pixels scaled by {quantised}, as the quantisation of its input says"
    if found is not None and found.fits_pixels:
        result = "scales them" if found.low is None or found.high is None else f"makes them {found.low:.3g} to {found.high:.3g}"
        return "none", f"pixels as they are ({found.origin} {result})"
    return None


def _scaling_question(facts: ModelFacts, file: str) -> str:
    found = facts.scaling
    why = "has no Rescaling or Normalization layer at its input"
    if found is not None:
        why = f"is not made for pixels of 0 to 255: {found.origin} would make them {found.low:.3g} to {found.high:.3g}"
    return f"{file} {why}; say what it was trained with (in a model.yaml: input.scale):\n  {_SCALES}"


def _quantised_scale(found: tuple[float, float] | None) -> str | None:
    """Return the scale whose values a quantised input holds."""
    if found is None:
        return None
    for scale, (low, high) in _QUANTISED_RANGES.items():
        if max(abs(found[0] - low), abs(found[1] - high)) <= _RANGE_TOLERANCE * (high - low):
            return scale
    return None


def _chosen_output(facts: ModelFacts, file: str, choices: Choices) -> OutputFacts:
    """Find the output with the classes. Raises ConfigurationError if there are several, and the user names none of them."""
    outputs = {output.name: output for output in facts.outputs}
    if choices.output is None and len(facts.outputs) == 1:
        return facts.outputs[0]
    if choices.output in outputs:
        return outputs[choices.output]
    if choices.output is not None:
        raise ConfigurationError(f"{file} has no output {choices.output}; it has {', '.join(outputs) or 'none'}")
    width = max(map(len, outputs), default=0)
    listed = [f"--output {name:{width}}  {_values(output)}" for name, output in outputs.items()]
    raise ConfigurationError(
        f"{file} has {len(facts.outputs)} outputs; say which has the classes (in a model.yaml: output.name):"
        + "".join(f"\n  {line}" for line in listed),
        field="output.name",
    )


def _values(output: OutputFacts) -> str:
    """Describe an output in a list of several."""
    count = "an unknown number of values" if output.classes is None else f"{output.classes} values"
    return f"{count} for an image{f', {output.activation}' if output.activation else ''}"


def _activation_question(found: OutputFacts, file: str) -> str:
    ending = "no activation, so it gives logits" if found.activation == "linear" else f"the activation {found.activation}"
    return (
        f"{file} ends in {ending}; say what makes probabilities of them (in a model.yaml: output.activation):\n"
        "  --activation softmax  one class for an image\n"
        "  --activation sigmoid  one unit for two classes, or several labels for an image\n"
        "  --activation none     answer the values as they are"
    )


def _task(found: OutputFacts, file: str, choices: Choices) -> tuple[str | None, int | None]:
    """Choose `task`, and count the classes. Raises ConfigurationError for an activation of probabilities."""
    if found.activation in _PROBABILITIES and choices.activation in _PROBABILITIES:
        raise ConfigurationError(
            f"{file} ends in a {found.activation} already; leave --activation out", field="output.activation"
        )
    is_sigmoid = (choices.activation or found.activation) == "sigmoid"
    has_labels = is_sigmoid and found.classes not in {None, 1}
    is_binary = is_sigmoid and found.classes == 1
    return "multi_label" if has_labels else None, 2 if is_binary else found.classes


def _shown(shape: tuple[Size, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
