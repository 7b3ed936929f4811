"""Model files: resolution of the locations in a description to paths on this host."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePath

from inference.errors import ConfigurationError, ObjectNotFound
from inference.models.archives import ModelFileLimits
from inference.models.digests import content_sha256, file_sha256, lines_sha256
from inference.models.labels import read_labels
from inference.models.locations import AllowedPlaces, FileLocation
from inference.models.model_code import PREPROCESS, CodeLocation, find_methods
from inference.models.object_cache import ObjectCache
from inference.models.pixel_scaling import NO_SCALE
from inference.models.spec import ChannelOrder, LocalFile, ModelDescription, ModelSpec, threshold_problem
from inference.settings import Settings
from inference.storage.protocol import DEAD_LETTERS_PREFIX, UPLOADS_PREFIX

_ARCHIVE_SUFFIX = ".zip"
_WHOLE_MODEL_SUFFIXES = (".keras", ".tflite", ".onnx", _ARCHIVE_SUFFIX)
_MAX_LABELS_BYTES = 2**24
_DEFAULT_FOLDER = Path("models")
#: folder in the cache of model files
CONVERSIONS_FOLDER = "litert"


class ModelFiles:
    """Finds and fetches model files, from allowed places only.

    Args:
        described: the configured models; their folders are allowed unless `model_files.allowed_folders` lists others.
    """

    def __init__(self, settings: Settings, described: Iterable[ModelDescription] = ()) -> None:
        self._settings = settings
        options = settings.model_files
        bucket = settings.uploads.bucket
        self._limits = file_limits(settings)
        self._places = AllowedPlaces(
            folders=options.allowed_folders or (_DEFAULT_FOLDER, *_folders_of(described)),
            buckets=options.allowed_buckets or (settings.model_bucket,),
            uploads=(f"{bucket}/{UPLOADS_PREFIX}", f"{bucket}/{DEAD_LETTERS_PREFIX}"),
        )

    def resolve(self, description: ModelDescription) -> ModelSpec:
        """Find the model's files on this host; files in a bucket are fetched.

        Raises:
            ObjectNotFound: a file or an object is missing; its `field` is the key that names it.
            ConfigurationError: a file is in a place that is not allowed, has a wrong digest, or is of a wrong kind.
            ServiceUnavailable: the object store does not answer.
        """
        code, has_preprocess = self._find_code(description)
        found = {key: self.find(location, description.folder, key) for key, location in description.locations.items()}
        known = dict(description) | {"local_files": found, "digest": _model_digest(found, code)}
        known |= {"code_file": code, "has_preprocess": has_preprocess}
        known |= {"max_unpacked_bytes": self._limits.max_bytes, "min_free_bytes": self._limits.min_free_bytes}
        known["conversions_dir"] = self._settings.model_cache_path / CONVERSIONS_FOLDER
        if description.labels_file is not None:
            labels = self._labels(description)
            if problem := threshold_problem(description.threshold, labels):
                raise ConfigurationError(problem, field="threshold")
            known |= {"labels": labels, "labels_file": None}
        return ModelSpec.model_validate(known)

    def with_files(self, spec: ModelSpec, *, architecture_file: str | None = None, weights_file: str | None = None) -> ModelSpec:
        """Create a copy of `spec` with other files; all other values stay the same.

        Without `architecture_file` the model keeps its own. The version names the loaded files: `VERSION+DIGEST`, eight digits.

        Args:
            architecture_file: a path, relative to the working directory, or ``s3://BUCKET/KEY``; see `in_bucket`.
            weights_file: the same. A whole model (`.keras`, `.tflite`, `.onnx`, a SavedModel) replaces all files.

        Raises:
            ObjectNotFound, ConfigurationError, ServiceUnavailable: see `resolve`.
        """
        changes = {"architecture_file": architecture_file, "weights_file": weights_file}
        changed: dict[str, str | None] = {key: _absolute(text, key) for key, text in changes.items() if text is not None}
        if architecture_file is None and weights_file is not None and _is_whole_model(weights_file):
            changed = {"file": changed["weights_file"], "architecture_file": None, "weights_file": None}
        elif "architecture_file" in changed:
            if spec.weights_file is None and "weights_file" not in changed:
                raise ConfigurationError(f"{spec.name}: an architecture needs weights_file too", field="weights_file")
            changed["file"] = None
        described = {key: value for key, value in dict(spec).items() if key in ModelDescription.model_fields}
        found = self.resolve(ModelDescription.model_validate(described | changed))
        version = f"{spec.version.partition('+')[0]}+{found.digest.removeprefix('sha256:')[:8]}"
        return found.model_copy(update={"version": version})

    def in_bucket(self, name: str) -> str:
        """Return the location of an object that a command names: ``s3://…`` unchanged, any other name in the models' bucket."""
        return name if name.startswith("s3://") else f"s3://{self._settings.model_bucket}/{name.lstrip('/')}"

    @cached_property
    def _cache(self) -> ObjectCache:
        from inference.storage.s3 import S3ObjectReader  # noqa: PLC0415 an adapter is imported only if it is used

        return ObjectCache(self._settings.model_cache_path, S3ObjectReader(self._settings.s3), self._limits)

    def find(self, location: FileLocation, folder: Path, key: str) -> LocalFile:
        """Find a file on this host, fetch it if it is an object, and unpack it if it is a .zip; raises the errors of `resolve`.

        Args:
            folder: the base of a relative path.
            key: the description's key that names the file, for errors.
        """
        try:
            path = self._path(location, folder)
            if path.suffix.lower() == _ARCHIVE_SUFFIX:
                path = self._cache.unpack(path, file_sha256(path))
            return LocalFile(location.text, path, content_sha256(path))
        except (ConfigurationError, ObjectNotFound) as error:
            error.field = key
            raise
        except (OSError, RuntimeError, ValueError) as error:  # not readable, a loop of links, or not a path
            reason = getattr(error, "strerror", None) or error
            public = f"cannot read {PurePath(location.text).name}"
            raise ConfigurationError(f"cannot read {location.text}: {reason}", public=public, field=key) from error

    def _find_code(self, description: ModelDescription) -> tuple[LocalFile | None, bool]:
        """Find the file of the model's code, and whether its class has `preprocess`; raises the errors of `resolve`."""
        if description.code is None:
            return None, False
        if not description.is_local:
            raise ConfigurationError("a model with files from a bucket runs no code; use local files", field="code")
        location = CodeLocation.parse(description.code)
        file = self.find(FileLocation(location.file), description.folder, "code")
        try:
            has_preprocess = PREPROCESS in find_methods(file.path, location)
        except ConfigurationError as error:
            error.field = "code"
            raise
        if has_preprocess:
            _check_unscaled(description)
        return file, has_preprocess

    def _path(self, location: FileLocation, folder: Path) -> Path:
        if location.bucket is not None:
            self._places.check_object(location)
            return self._cache.fetch(location)
        path = folder / location.text
        self._places.check_path(path)
        if not path.exists():
            raise ObjectNotFound(f"there is no file {path}", public=f"there is no file {path.name}")
        if path.is_dir():
            self._check_folder(path)
        if not path.is_file() and not path.is_dir():
            public = f"{path.name} is neither a file nor a folder"
            raise ConfigurationError(f"{path} is neither a file nor a folder", public=public)  # reading a pipe may never end
        sha256 = content_sha256(path) if location.sha256 else None
        if sha256 != location.sha256:
            raise ConfigurationError(
                f"{path} has the digest sha256:{sha256}, not sha256:{location.sha256}",
                public=f"{path.name} has the digest sha256:{sha256}, not sha256:{location.sha256}",
            )
        return path

    def _check_folder(self, folder: Path) -> None:
        """Raise ConfigurationError if the folder has a file that the digest does not cover, or a link to a forbidden place."""
        for path in folder.rglob("*"):
            name = path.relative_to(folder)
            if path.is_symlink():
                self._places.check_path(path)
                if not path.is_file():
                    raise ConfigurationError(f"{folder.name} has a link to a folder or to a missing file: {name}")
            elif not path.is_file() and not path.is_dir():
                raise ConfigurationError(f"{folder.name} has a special file: {name}")

    def _labels(self, description: ModelDescription) -> tuple[str, ...]:
        location = FileLocation.parse(description.labels_file or "")
        path = self.find(location, description.folder, "labels_file").path
        try:
            if path.stat().st_size > _MAX_LABELS_BYTES:
                public = f"the labels file has more than {_MAX_LABELS_BYTES} bytes"
                raise ConfigurationError(
                    f"{location.text} has more than {_MAX_LABELS_BYTES} bytes", public=public, field="labels_file"
                )
            return read_labels(path.read_bytes())
        except OSError as error:
            detail = f"{location.text}: {error.strerror or error}"
            raise ConfigurationError(detail, public="the labels cannot be read", field="labels_file") from error
        except ValueError as error:
            public = f"the labels file {error}"
            raise ConfigurationError(f"{location.text} {error}", public=public, field="labels_file") from error


def file_limits(settings: Settings) -> ModelFileLimits:
    return ModelFileLimits(settings.model_files.max_unpacked_mb * 2**20, settings.uploads.min_free_disk_mb * 2**20)


def _folders_of(described: Iterable[ModelDescription]) -> Iterable[Path]:
    """Yield the folders of the configured models: that of each model.yaml; for other descriptions, those of their files."""
    for description in described:
        if description.folder != Path():
            yield description.folder
            continue
        for location in description.locations.values():
            if location.bucket is None:
                path = Path(location.text)
                yield path.parent if path.parent != Path() else path  # not the working directory: it holds more than models


def _absolute(text: str, key: str) -> str:
    """Make a path absolute, so that it is valid in a description of any folder."""
    try:
        location = FileLocation.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{text}: {error}", field=key) from error
    return text if location.bucket is not None else str(Path(text).absolute())


def _is_whole_model(location: str) -> bool:
    """Whether the location names a whole model; an H5 file may be one too, but counts as weights."""
    return Path(location.partition("#")[0]).suffix.lower() in _WHOLE_MODEL_SUFFIXES or Path(location).is_dir()


def _check_unscaled(description: ModelDescription) -> None:
    """Raise ConfigurationError if the description converts pixels, which is the task of the code's `preprocess`."""
    defaults = {"scale": NO_SCALE, "mean": (), "std": (), "channel_order": ChannelOrder.RGB}
    for key, default in defaults.items():
        if getattr(description.input, key) != default:
            problem = f"preprocess of {CodeLocation.parse(description.code or '')} gets pixels, and replaces it; leave it out"
            raise ConfigurationError(problem, field=f"input.{key}")


def _model_digest(files: dict[str, LocalFile], code: LocalFile | None) -> str:
    if code is not None:
        files = files | {"code": code}
    if len(files) == 1:
        return f"sha256:{next(iter(files.values())).sha256}"
    return f"sha256:{lines_sha256((key, file.sha256) for key, file in files.items())}"
