"""The description of a model as the text of a model.yaml, with comments."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from inference.models.inspection.description import Described
from inference.settings.installation import COMMAND

_COMMENTS = {
    "name": "also in the name of the queue: predict.NAME",
    "version": "yours; each result names it",
    "file": "relative to this file, or s3://BUCKET/KEY",
    "labels_file": "one label a line, in class order",
    "threshold": "a result is confident from here on",
    "input.shape": "height, width, channels",
    "input.layout": "the graph takes channels first",
    "input.resize": "center_crop: the central square; stretch: the whole picture",
    "input.dtype": "of the images that the graph gets",
    "input.raw": "arrays are pictures, values 0 to 255; model_ready: values as they are",
    "output.name": "the output with the classes",
    "output.activation": "makes probabilities of the graph's output",
    "task": "an image has any number of labels",
}
_HEADER = """# Description of a model; docs/models.md has all keys. Save it as {file}
# and serve it with: {command} serve {folder}
# Found: {found}
"""
#: Keys that people change first, with their defaults.
_SHOWN_DEFAULTS = {"resize": "center_crop"}


def model_yaml(described: Described, file: Path) -> str:
    """Write the text of a model.yaml, which is to be saved as `file`: its paths are relative to that folder."""
    document = dict(described.document)
    image = dict(document["input"])
    for key, default in _SHOWN_DEFAULTS.items():
        image.setdefault(key, default)
    document["input"] = image
    comments = _COMMENTS | {"input.scale": described.scaling}
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    header = _HEADER.format(file=shown, folder=shlex.quote(str(shown.parent)), found=described.summary, command=COMMAND)
    return header + "".join(_lines(document, "", comments))


def _lines(values: Mapping[str, Any], prefix: str, comments: Mapping[str, str]) -> list[str]:
    indent = "  " if prefix else ""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:\n", *_lines(value, f"{key}.", comments)]
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
        comment = comments.get(prefix + key)
        lines.append(f"{indent}{key}: {text}{f'  # {comment}' if comment else ''}\n")
    return lines
