"""Locations of model files, and the places that are allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from inference.errors import ConfigurationError
from inference.storage.protocol import is_path

_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_DIGEST_MARK = "#sha256="
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileLocation:
    """A path, or an object in a bucket, with the digest of its content if that is fixed."""

    #: the path, or ``s3://BUCKET/KEY``
    text: str
    #: 64 hex digits, or None
    sha256: str | None = None
    bucket: str | None = None
    #: key of the object in the bucket
    key: str = ""

    @staticmethod
    def parse(text: str) -> FileLocation:
        """Read ``PATH`` or ``s3://BUCKET/KEY``, optionally followed by ``#sha256=HEX``. Raises ValueError."""
        place, mark, digest = text.partition(_DIGEST_MARK)
        if mark and not _DIGEST.fullmatch(digest):
            raise ValueError(f"{_DIGEST_MARK} must be followed by 64 hex digits in lower case")
        if not place or "\0" in place:
            raise ValueError("must be a path or s3://BUCKET/KEY")
        found = _OBJECT.fullmatch(place)
        if found is None:
            if "://" in place:
                raise ValueError("must be a path or s3://BUCKET/KEY")
            return FileLocation(place, digest or None)
        bucket, key = found.groups()
        if not is_path(key):
            raise ValueError(f"{key} is not an object's key")
        return FileLocation(place, digest or None, bucket, key)

    def __str__(self) -> str:
        return f"{self.text}{_DIGEST_MARK}{self.sha256}" if self.sha256 else self.text


@dataclass(frozen=True)
class AllowedPlaces:
    """Places that models may come from: a SavedModel's graph can read and write files, so its place must be trusted."""

    folders: tuple[Path, ...]
    buckets: tuple[str, ...]
    #: ``BUCKET/PREFIX`` of clients' uploads, which are never used as models
    uploads: tuple[str, ...] = ()

    def check_object(self, location: FileLocation) -> None:
        """Raise ConfigurationError if an object is in a place that is not allowed."""
        if location.bucket not in self.buckets:
            raise ConfigurationError(
                f"{location.text} is not in a bucket that models may come from (model_files.allowed_buckets:"
                f" {', '.join(self.buckets)})",
                public=f"{location.key} is not in a bucket that models may come from (model_files.allowed_buckets)",
            )
        if f"{location.bucket}/{location.key}".startswith(self.uploads):
            public = f"{location.key} is a client's upload, which is never used as a model"
            raise ConfigurationError(f"{location.text} is a client's upload, which is never used as a model", public=public)

    def check_path(self, path: Path) -> None:
        """Raise ConfigurationError if a path is not in an allowed folder after all links are resolved."""
        real = path.resolve()
        if not any(real.is_relative_to(folder.resolve()) for folder in self.folders):
            raise ConfigurationError(
                f"{path} is not in a folder that models may come from (model_files.allowed_folders:"
                f" {', '.join(map(str, self.folders))})",
                public=f"{path.name} is not in a folder that models may come from (model_files.allowed_folders)",
            )
