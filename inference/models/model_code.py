"""Code of a model: the key `code` of its description, and the class in the file as its source text shows it.

The API and the worker read the text and run nothing of it; the predictor process runs it: `predictor.custom_code`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from inference.errors import ConfigurationError

PREPROCESS, POSTPROCESS = "preprocess", "postprocess"

_CODE = re.compile(r"(?P<file>[^\0]+\.py):(?P<name>[^\W\d]\w*)")
_MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class CodeLocation:
    """Content of the key `code`: ``FILE.py:CLASS``."""

    file: str
    class_name: str

    @staticmethod
    def parse(text: str) -> CodeLocation:
        """Read ``FILE.py:CLASS``. Raises ValueError."""
        found = _CODE.fullmatch(text)
        if found is None:
            raise ValueError("must be FILE.py:CLASS, such as classifier.py:Flowers")
        if "://" in found["file"]:
            raise ValueError("must be a file of this host: code from a bucket is not run")
        return CodeLocation(found["file"], found["name"])

    def __str__(self) -> str:
        """Return the location without its folder, for messages."""
        return f"{PurePath(self.file).name}:{self.class_name}"


def find_methods(path: Path, location: CodeLocation) -> frozenset[str]:
    """Find which of `preprocess` and `postprocess` the class defines, without running its file.

    Raises:
        ConfigurationError: the file is not Python, or has no such class with one of the two methods in its own body.
        OSError: the file cannot be read.
    """
    name = PurePath(location.file).name
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{name} has more than {_MAX_FILE_BYTES} bytes")
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ConfigurationError(f"{name} is not Python: {error.msg} (line {error.lineno})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigurationError(f"{name} is not Python: {type(error).__name__}") from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = [node for node in classes if node.name == location.class_name]
    if not found:
        names = ", ".join(node.name for node in classes) or "none"
        raise ConfigurationError(f"{name} has no class {location.class_name} at its top level; its classes: {names}")
    methods = {node.name for node in found[-1].body if isinstance(node, ast.FunctionDef)} & {PREPROCESS, POSTPROCESS}
    if not methods:
        raise ConfigurationError(f"the class {location.class_name} in {name} defines neither {PREPROCESS} nor {POSTPROCESS}")
    return frozenset(methods)
