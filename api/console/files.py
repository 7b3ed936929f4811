"""Files that the console loads: its own scripts and style, the vendored libraries of vendor.lock.json, and sample images.

All of them are served below one digest of their contents, so browsers may keep them for ever.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_STATIC = Path(__file__).parent / "static"
_SAMPLES = Path(__file__).parents[2] / "samples"
_MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
_TEXTS = frozenset({".css", ".js"})


@dataclass(frozen=True)
class ConsoleFile:
    """File of the console."""

    content: bytes
    media_type: str
    #: the content compressed by gzip; None for images, which are compressed already
    compressed: bytes | None


@dataclass(frozen=True)
class ConsoleFiles:
    """All files by name, and their digest: 16 hexadecimal digits."""

    by_name: dict[str, ConsoleFile]
    digest: str


@cache
def console_files() -> ConsoleFiles:
    """Read and compress the files; the first call does so."""
    places = [*_STATIC.iterdir(), *(_STATIC / "vendor").iterdir(), *_SAMPLES.iterdir()]
    files = {path.name: _read(path) for path in sorted(places) if path.suffix in _MEDIA_TYPES}
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name} {len(file.content)}\n".encode() + file.content)
    return ConsoleFiles(files, digest.hexdigest()[:16])


def _read(path: Path) -> ConsoleFile:
    content = path.read_bytes()
    compressed = gzip.compress(content, mtime=0) if path.suffix in _TEXTS else None
    return ConsoleFile(content, _MEDIA_TYPES[path.suffix], compressed)
