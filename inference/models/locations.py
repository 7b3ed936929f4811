"""Where a model's file lies, and where it may."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from inference.errors import ConfigurationError

_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_DIGEST_MARK = "#sha256="
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileLocation:
    """A path, or an object in a bucket; and the digest of its content where that is fixed."""

    #: the path, or ``s3://BUCKET/KEY``
    text: str
    #: hex, 64 digits
    sha256: str | None = None
    bucket: str | None = None
    #: of the object in the bucket
    key: str = ""

    @staticmethod
    def parse(text: str) -> FileLocation:
        """Read ``PATH`` or ``s3://BUCKET/KEY``, either with ``#sha256=HEX`` behind it. Raises ValueError."""
        place, mark, digest = text.partition(_DIGEST_MARK)
        if mark and not _DIGEST.fullmatch(digest):
            raise ValueError(f"what follows {_DIGEST_MARK} must be 64 hex digits in lower case")
        if not place or "\0" in place:
            raise ValueError("must be a path or s3://BUCKET/KEY")
        found = _OBJECT.fullmatch(place)
        if found is None:
            if "://" in place:
                raise ValueError("must be a path or s3://BUCKET/KEY")
            return FileLocation(place, digest or None)
        bucket, key = found.groups()
        if not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise ValueError(f"{key} is not an object's key")
        return FileLocation(place, digest or None, bucket, key)

    def __str__(self) -> str:
        return f"{self.text}{_DIGEST_MARK}{self.sha256}" if self.sha256 else self.text


@dataclass(frozen=True)
class AllowedPlaces:
    """Where models may come from: a SavedModel's graph can read and write files, so its place must be trusted."""

    folders: tuple[Path, ...]
    buckets: tuple[str, ...]
    #: ``BUCKET/PREFIX`` of what clients sent, which is never a model
    uploads: tuple[str, ...] = ()

    def check_object(self, location: FileLocation) -> None:
        """Raises ConfigurationError."""
        if location.bucket not in self.buckets:
            raise ConfigurationError(
                f"{location.text} lies in no bucket that models may come from (model_files.allowed_buckets:"
                f" {', '.join(self.buckets)})",
                public=f"{location.key} lies in no bucket that models may come from (model_files.allowed_buckets)",
            )
        if f"{location.bucket}/{location.key}".startswith(self.uploads):
            public = f"{location.key} is what a client sent, which is never a model"
            raise ConfigurationError(f"{location.text} is what a client sent, which is never a model", public=public)

    def check_path(self, path: Path) -> None:
        """Wherever links lead. Raises ConfigurationError."""
        real = path.resolve()
        if not any(real.is_relative_to(folder.resolve()) for folder in self.folders):
            raise ConfigurationError(
                f"{path} lies in no folder that models may come from (model_files.allowed_folders:"
                f" {', '.join(map(str, self.folders))})",
                public=f"{path.name} lies in no folder that models may come from (model_files.allowed_folders)",
            )
