"""Layers in a Keras configuration: the way of the pixels from the input, and the layer that gives the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from inference.models.inspection.facts import InputScaling, OutputFacts
from inference.models.inspection.value_range import PixelRange

#: Layers and operations that change no value, or nothing but the place of one.
_KEEPING = {
    *("InputLayer", "Identity", "Dropout", "GaussianNoise", "Cast", "GetItem", "Flip", "Permute", "Transpose"),
    *("Resizing", "CenterCrop", "ZeroPadding2D", "Cropping2D", "Reshape"),
}
#: Random layers for training, such as RandomFlip, do nothing at inference.
_RANDOM = "Random"
_ARITHMETIC = {
    "TrueDivide": np.divide,
    "Divide": np.divide,
    "Multiply": np.multiply,
    "Subtract": np.subtract,
    "Add": np.add,
}
#: Layers after the one with the classes that keep their number.
_AFTER_CLASSES = {
    "Reshape",
    "Softmax",
    "Activation",
    "Dropout",
    "Identity",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "ActivityRegularization",
}
#: Nested models deeper than this are not followed.
_MAX_DEPTH = 10


@dataclass(frozen=True)
class Layer:
    kind: str
    name: str
    config: dict[str, Any]
    #: names of the layers whose outputs it takes
    inbound: tuple[str, ...] = ()
    #: constants among its operands, and whether each comes before the tensor
    constants: tuple[tuple[Any, bool], ...] = ()
    build_shape: Any = None

    @staticmethod
    def read(document: Any) -> Layer:
        """Read a layer's part of a configuration, of Keras 2 or 3; anything malformed becomes empty."""
        document = document if isinstance(document, dict) else {}
        config = document.get("config")
        config = {"layers": config} if isinstance(config, list) else config if isinstance(config, dict) else {}
        nodes = document.get("inbound_nodes")
        operands = list(_operands(nodes[0])) if isinstance(nodes, list) and nodes else []
        tensors = [place for place, (name, _) in enumerate(operands) if name]
        built = document.get("build_config")
        return Layer(
            kind=str(document.get("class_name", "")),
            name=str(document.get("name") or config.get("name", "")),
            config=config,
            inbound=tuple(name for name, _ in operands if name),
            constants=tuple((value, place < min(tensors, default=0)) for place, (name, value) in enumerate(operands) if not name),
            build_shape=built.get("input_shape") if isinstance(built, dict) else None,
        )


@dataclass
class _Walk:
    values: PixelRange = field(default_factory=PixelRange)
    #: whether all layers so far were followed
    is_open: bool = True


def layers_of(model: Layer) -> list[Layer]:
    """Return the layers of a model, in their order; empty for a layer that is not a model."""
    layers = model.config.get("layers")
    return [Layer.read(layer) for layer in layers] if isinstance(layers, list) else []


def find_scaling(model: Layer) -> InputScaling | None:
    """Follow the pixels from the input to the first layer that computes more than a scaling; None if nothing scales them."""
    walk = _Walk()
    _follow(model, walk, _MAX_DEPTH)
    return walk.values.found()


def find_outputs(model: Layer, depth: int = _MAX_DEPTH) -> tuple[OutputFacts, ...]:
    """Find the name of each output, its activation, and the number of its classes, from the last layers."""
    layers = layers_of(model)
    ends = _output_layers(model.config.get("output_layers")) or [(layer.name, layer.name) for layer in layers[-1:]]
    if len({name for name, _ in ends}) < len(ends):
        ends = [(f"output_{number}", layer) for number, (_, layer) in enumerate(ends)]
    return tuple(_find_output(layers, name, layer, depth) for name, layer in ends) or (OutputFacts(),)


def _find_output(layers: Sequence[Layer], name: str, end: str, depth: int) -> OutputFacts:
    """Follow the output of the layer `end` back to the layer with the classes."""
    places = {layer.name: place for place, layer in enumerate(layers)}
    activation, reshaped, place = None, None, places.get(end, -1)
    for _ in layers:  # not for ever, if the configuration has a circle
        if place < 0:
            break
        layer = layers[place]
        if layers_of(layer) and depth:
            inner = find_outputs(layer, depth - 1)
            found = inner[0] if len(inner) == 1 else OutputFacts()
            return OutputFacts(name, reshaped or found.classes, activation or found.activation)
        activation = activation or _activation(layer)
        classes = layer.config.get("units") or layer.config.get("filters")
        if isinstance(classes, int):
            return OutputFacts(name, reshaped or classes, activation)
        reshaped = reshaped or _target_size(layer)
        place = places.get(layer.inbound[0], -1) if layer.inbound else place - 1
        if layer.kind not in _AFTER_CLASSES:
            break
    return OutputFacts(name, reshaped, activation)


def _target_size(layer: Layer) -> int | None:
    """Return the number of values that a Reshape layer gives for one image; None for other layers, or if it is open."""
    shape = layer.config.get("target_shape") if layer.kind == "Reshape" else None
    sizes = [size for size in shape if isinstance(size, int)] if isinstance(shape, list) else []
    return prod(sizes) if min(sizes, default=0) > 0 else None


def _follow(model: Layer, walk: _Walk, depth: int) -> None:
    layers = layers_of(model)
    is_graph = any(layer.inbound for layer in layers)
    waiting = list(layers[:1])
    seen: set[str] = set()
    while waiting and walk.is_open:
        layer = waiting.pop()
        if layer.name in seen:
            return
        seen.add(layer.name)
        if layers_of(layer) and depth:
            _follow(layer, walk, depth - 1)
        else:
            walk.is_open = _apply(layer, walk.values)
        following = _consumers(layer, layers) if is_graph else layers[layers.index(layer) + 1 :][:1]
        if len(following) > 1:  # the pixels go different ways
            walk.is_open = False
        waiting += following[:1]


def _consumers(layer: Layer, layers: Sequence[Layer]) -> list[Layer]:
    return [other for other in layers if layer.name in other.inbound]


def _apply(layer: Layer, values: PixelRange) -> bool:
    """Apply a layer to the range of the pixels; False if it is not known to be a scaling, or computes more."""
    with suppress(TypeError, ValueError):
        if layer.kind in _KEEPING or layer.kind.startswith(_RANDOM):
            return True
        if layer.kind == "Rescaling":
            values.apply(np.multiply, _numbers(layer.config.get("scale")), "a Rescaling layer")
            values.apply(np.add, _numbers(layer.config.get("offset", 0)), "a Rescaling layer")
            return True
        if layer.kind == "Normalization":
            _normalize(layer, values)
            return True
        if layer.kind in _ARITHMETIC and len(layer.inbound) == 1 and len(layer.constants) >= 1:
            constant, is_first = layer.constants[0]
            values.apply(_ARITHMETIC[layer.kind], _numbers(constant), layer.kind, is_first=is_first)
            return True
    return False


def _normalize(layer: Layer, values: PixelRange) -> None:
    """Apply a Normalization layer. One that was adapted to data has its mean in the weights, which are not read."""
    mean, variance = layer.config.get("mean"), layer.config.get("variance")
    if mean is None or variance is None:
        values.apply_unknown("a Normalization layer adapted to data")
        return
    values.apply(np.subtract, _numbers(mean), "a Normalization layer")
    values.apply(np.divide, np.sqrt(_numbers(variance)), "a Normalization layer")


def _numbers(value: Any) -> Any:
    """Read a number, a list, or an array in the form of Keras' configurations. Raises TypeError, ValueError."""
    if isinstance(value, dict):
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, dict) else None
    if value is None:
        raise ValueError("no number")
    return np.asarray(value, np.float64)


def _operands(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the operands of a layer's first call in order: the name of a layer and None, or an empty name and a constant."""
    match node:
        case {"args": list(operands), **rest}:  # Keras 3
            named = rest.get("kwargs")
            for operand in [*operands, *(named.values() if isinstance(named, dict) else ())]:
                yield from _operand(operand)
        case list(operands):  # Keras 2
            for operand in operands:
                if isinstance(operand, list) and operand and isinstance(operand[0], str):
                    yield operand[0], None


def _operand(operand: Any) -> Iterator[tuple[str, Any]]:
    match operand:
        case {"class_name": "__keras_tensor__", "config": {"keras_history": [str(name), *_]}}:
            yield name, None
        case list(items) if any(isinstance(item, dict) for item in items):
            for item in items:
                yield from _operand(item)
        case None:
            return
        case _:
            yield "", operand


def _output_layers(found: Any) -> list[tuple[str, str]]:
    """Return the name of each output, which is a key of a mapping or that of its layer, and the name of its layer."""
    match found:
        case [str(layer), int(), int()]:
            return [(layer, layer)]
        case list(items):
            return [output for item in items for output in _output_layers(item)]
        case dict(items):
            return [(str(name), layer) for name, item in items.items() for _, layer in _output_layers(item)]
    return []


def _activation(layer: Layer) -> str | None:
    """Return the name of the layer's activation; None for a layer that has none to choose."""
    if layer.kind == "Softmax":
        return "softmax"
    found = layer.config.get("activation")
    if isinstance(found, dict):
        found = found.get("config")
    if isinstance(found, str):
        return None if layer.kind == "Activation" and found == "linear" else found
    return "linear" if "units" in layer.config and "activation" in layer.config else None
