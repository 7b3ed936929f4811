"""Digests of model files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def content_sha256(path: Path) -> str:
    """Compute the hex digest of a file, or that of the lines `RELATIVE/PATH sha256:HEX` of a folder's files, sorted by name."""
    if not path.is_dir():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return lines_sha256((file.relative_to(path).as_posix(), file_sha256(file)) for file in files)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines_sha256(named: Iterable[tuple[str, str]]) -> str:
    """Compute the hex digest of the lines `NAME sha256:HEX`."""
    return hashlib.sha256("".join(f"{name} sha256:{digest}\n" for name, digest in named).encode()).hexdigest()
