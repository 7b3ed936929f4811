"""Translation of Keras 2 configurations, so that Keras 3 can read them.

Keras 3 translates files of Keras 2 up to 2.12 itself (`keras.src.legacy`), except for the few arguments removed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras  # type: ignore[import-untyped]
from keras.src.legacy.saving.saving_options import keras_option_scope  # type: ignore[import-untyped]
from keras.src.legacy.saving.saving_utils import model_from_config  # type: ignore[import-untyped]
from keras.src.saving.serialization_lib import SafeModeScope  # type: ignore[import-untyped]

#: Keys of Keras 2.13 and later; if they are present, Keras 3 treats the configuration as its own.
_MODULE_KEYS = {"module", "registered_name", "build_config"}

_BUILT_IN = {"keras", "tf_keras"}

#: By layer, arguments that Keras 2 wrote and never used.
_UNUSED = {
    "DepthwiseConv2D": {"groups"},
    "SeparableConv2D": {"groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"},
}


def is_keras_2(config: Mapping[str, Any]) -> bool:
    """Whether Keras 2 wrote the configuration: Keras 3 names the module of every object, Keras 2 its own version."""
    return "module" not in config or str(config.get("keras_version", "3")).startswith(("1.", "2."))


def model_of(config: Mapping[str, Any]) -> keras.Model:
    """Create a model from a configuration of Keras 2, or of Keras 3 in the same form. Raises the errors of Keras."""
    with SafeModeScope(safe_mode=True), keras_option_scope(use_legacy_config=True):
        return model_from_config(_replace_slashes(_translate(config)))


def _translate(config: Any) -> Any:
    match config:
        case {"class_name": str(kind), "config": dict(arguments)}:
            is_built_in = str(config.get("module", "")).partition(".")[0] in _BUILT_IN
            left_out = _MODULE_KEYS if is_built_in else set()
            kept = {key: _translate(value) for key, value in config.items() if key not in left_out | {"config"}}
            return kept | {"config": _translate(_translate_arguments(kind, arguments))}
        case dict():
            return {key: _translate(value) for key, value in config.items()}
        case list():
            return [_translate(item) for item in config]
    return config


def _translate_arguments(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in arguments.items() if key not in _UNUSED.get(kind, ())}
    if kind in {"Functional", "Model"}:
        # from lists of one, Keras 3 would make lists of one tensor, and layers after a nested model do not take these
        kept |= {key: kept[key][0] for key in ("input_layers", "output_layers") if _is_list_of_one(kept.get(key))}
    return kept


def _is_list_of_one(tensors: Any) -> bool:
    return isinstance(tensors, list) and len(tensors) == 1 and isinstance(tensors[0], list)


def _replace_slashes(config: Any) -> Any:
    """Replace the slashes in layers' names, which Keras 3 does not allow. Weights are assigned by order, not by name."""
    slashed = {found["config"]["name"] for found in objects_in(config) if "/" in _name(found)}
    return _rename(config, {name: name.replace("/", "__") for name in slashed})


def _rename(config: Any, names: Mapping[str, str]) -> Any:
    match config:
        case dict():
            return {key: _rename(value, names) for key, value in config.items()}
        case list():
            return [_rename(item, names) for item in config]
        case str():
            return names.get(config, config)
    return config


def objects_in(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a configuration, at any depth."""
    waiting = [config]
    while waiting:
        match waiting.pop():
            case dict() as found:
                yield found
                waiting += found.values()
            case list() as items:
                waiting += items


def _name(found: Mapping[str, Any]) -> str:
    arguments = found.get("config")
    return str(arguments.get("name", "")) if isinstance(arguments, dict) else ""
