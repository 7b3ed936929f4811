"""Read a configuration file: YAML or JSON in UTF-8, with or without a byte order mark, no key of it twice."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import yaml

from inference.errors import ConfigurationError

#: Encodings by the mark at the beginning; the one of UTF-32 begins as the one of UTF-16 does.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_mapping(file: Path) -> dict[str, Any]:
    """The file's content; an empty file is an empty mapping. Raises ConfigurationError."""
    text = read_text(file, "the configuration")
    try:
        # JSON is YAML but for tabs and surrogate pairs.
        is_json = file.suffix.lower() == ".json" and text.strip()
        document = json.loads(text, object_pairs_hook=_json_mapping) if is_json else yaml.load(text, _Loader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{file} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigurationError(f"{file} is nested too deeply") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{file} must be a mapping of settings, not {type(document).__name__}")
    strange = next((key for key in document if not isinstance(key, str)), None)
    if strange is not None:
        raise ConfigurationError(f"{file}: the key {strange!r} is not a text; put it into quotes")
    return document


def read_text(file: Path, what: str) -> str:
    """The file's text without a byte order mark.

    Args:
        what: the name of it in errors.

    Raises:
        ConfigurationError: it cannot be read, or is not UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {what} {file}: {error.strerror}") from error
    encoding = next((name for mark, name in _OTHER_ENCODINGS.items() if content.startswith(mark)), None)
    if encoding is not None:
        raise ConfigurationError(f"{file} is {encoding}; save it as UTF-8")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{file} is neither YAML nor JSON: it is not UTF-8 ({error.reason} at byte {error.start})"
        ) from error


class _Loader(yaml.SafeLoader):
    """`SafeLoader` that refuses a key that a mapping has twice, where YAML would take the last and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _json_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return mapping
