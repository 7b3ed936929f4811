"""Dependencies and extras of the wheel, read from the requirements files while it is built.

pip, the Dockerfile and the wheel have one list this way. Build backends cannot read these files themselves, since they have the
options `-r` and `-c`. A wheel has no constraints, so the files name each package whose exact version the code needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_BASE = "requirements-base.txt"
#: File of each extra; its packages come in addition to those of the base.
_EXTRAS = {
    "tensorflow": "requirements.txt",
    "gpu": "requirements-gpu.txt",
    "litert": "requirements-litert.txt",
    "onnx": "requirements-onnx.txt",
    "tracing": "requirements-tracing.txt",
}


class RequirementsHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies and the extras in the project's metadata."""
        root = Path(self.root)
        metadata["dependencies"] = _requirements(root / _BASE)
        metadata["optional-dependencies"] = {name: _requirements(root / file) for name, file in _EXTRAS.items()}


def _requirements(file: Path) -> list[str]:
    """Return the requirements of a file, without comments and without options such as `-r`."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("-")]
