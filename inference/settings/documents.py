"""Reading of a configuration file: YAML or JSON in UTF-8, with or without a byte order mark, without duplicate keys."""

from __future__ import annotations

import codecs
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from inference.errors import ConfigurationError

#: Encodings by their byte order mark; UTF-32 is tested first, since its mark begins with the mark of UTF-16.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
#: A quoted name or letter in PyYAML's messages; special characters, and tokens such as '<block end>', are not secrets.
_NAME_IN_QUOTES = re.compile(r" ['\"](?!<)(?:[^'\"]{2,}|\w)['\"]")


def read_mapping(file: Path, what: str = "the configuration", *, wrong: str = "neither YAML nor JSON") -> dict[str, Any]:
    """Return the file's content; an empty file is an empty mapping. Raises ConfigurationError, which shows no text of the file.

    Args:
        what: name of the file's content in errors.
        wrong: description of a malformed file in errors.
    """
    text = read_text(file, what, wrong=wrong)
    try:
        # YAML accepts most JSON, but not tabs and surrogate pairs.
        is_json = file.suffix.lower() == ".json" and text.strip()
        document = json.loads(text, object_pairs_hook=_json_mapping) if is_json else yaml.load(text, _Loader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{file} is {wrong}: {_description(error)}") from error
    except RecursionError:
        raise ConfigurationError(f"{file} is nested too deeply") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{file} must be a mapping of settings, not {type(document).__name__}")
    wrong_key = next((key for key in document if not isinstance(key, str)), None)
    if wrong_key is not None:
        raise ConfigurationError(f"{file}: the key {wrong_key!r} is not a text; put it into quotes")
    return document


def read_text(file: Path, what: str, *, wrong: str = "not UTF-8") -> str:
    """Return the file's text without a byte order mark.

    Args:
        what: name of the file's content in errors.
        wrong: description of a malformed file in errors.

    Raises:
        ConfigurationError: the file cannot be read, or is not UTF-8.
    """
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the path is malformed
        raise ConfigurationError(f"cannot read {what} {file}: {getattr(error, 'strerror', error)}") from error
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if encoding := _other_encoding(content):
            raise ConfigurationError(f"{file} is {encoding}; save it as UTF-8") from error
        raise ConfigurationError(f"{file} is {wrong}: {error.reason} at byte {error.start}; save it as UTF-8") from error


def _other_encoding(content: bytes) -> str | None:
    for mark, name in _OTHER_ENCODINGS.items():
        with suppress(UnicodeDecodeError):
            if content.startswith(mark) and content.decode(name):
                return name
    return None


def _description(error: Exception) -> str:
    """Return the problem and its place, without names of aliases and tags: an unquoted secret may be parsed as one."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    problem = error.problem or error.context or "wrong"
    if not isinstance(error, _KeyTwiceError):
        problem = _NAME_IN_QUOTES.sub("", problem)
    places = [f"line {mark.line + 1}, column {mark.column + 1}" for mark in (error.problem_mark, error.context_mark) if mark]
    return " in ".join([problem, *places[:1]]) + "".join(f", in the part that begins in {place}" for place in places[1:])


class _KeyTwiceError(yaml.MarkedYAMLError):
    pass


class _Loader(yaml.SafeLoader):
    """`SafeLoader` that refuses duplicate keys, of which YAML would silently use the last.

    A value that does not fit its type, such as the date 2024-13-01, is an error that names the place.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"a value that is no {kind}", problem_mark=node.start_mark) from error

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise _KeyTwiceError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _json_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return mapping
