"""The files of models: from where a command names them to where they lie on this host."""

from __future__ import annotations

import hashlib
from pathlib import Path

from inference.errors import ConfigurationError, ObjectNotFound
from inference.models.spec import ModelSpec
from inference.settings import Settings

_OBJECT = "s3://"


class ModelFiles:
    """Finds and fetches the files that commands name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def with_files(self, spec: ModelSpec, *, architecture_file: str | None = None, weights_file: str | None = None) -> ModelSpec:
        """`spec` with other files, for everything else the same model. The version says what was loaded.

        Args:
            architecture_file: a path, relative to the working directory, or ``s3://BUCKET/KEY``.
            weights_file: the same.

        Raises:
            ObjectNotFound, ConfigurationError, ServiceUnavailable.
        """
        if architecture_file is not None or weights_file is None:
            raise ConfigurationError(f"{spec.name}: a whole model (.keras) is needed", field="weights_file")
        path = self._fetch(weights_file) if weights_file.startswith(_OBJECT) else Path(weights_file)
        if not path.is_file():
            raise ObjectNotFound(f"there is no file {path}", field="weights_file")
        labels = spec.labels_file and (spec.folder / spec.labels_file).absolute()
        changes = {"file": path.absolute(), "labels_file": labels, "folder": spec.folder}
        changed = ModelSpec.model_validate(spec.model_dump() | changes)
        version = f"{spec.version.partition('+')[0]}+{changed.digest.removeprefix('sha256:')[:8]}"
        return changed.model_copy(update={"version": version})

    def in_bucket(self, name: str) -> str:
        """The object that a command names: ``s3://…`` as it is, anything else in the models' bucket."""
        return name if name.startswith(_OBJECT) else f"{_OBJECT}{self._settings.uploads.bucket}/{name.lstrip('/')}"

    def _fetch(self, location: str) -> Path:
        from inference.storage.minio import MinioObjectStore  # noqa: PLC0415 an adapter is loaded when it is chosen

        bucket, _, key = location.removeprefix(_OBJECT).partition("/")
        data = MinioObjectStore(self._settings.minio, bucket).get(key)
        folder = self._settings.data_dir / "model-files" / hashlib.sha256(data).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / Path(key).name
        path.write_bytes(data)
        return path
