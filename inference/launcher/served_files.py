"""Models that a command names by a file, a folder or an object, described without a model.yaml if there is none."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from inference.errors import ConfigurationError, ObjectNotFound
from inference.models.description_file import DESCRIPTION_FILE, read_document, read_folder
from inference.models.files import ModelFiles, file_limits
from inference.models.inspection.description import Choices, Described, LabelSource, describe
from inference.models.inspection.facts import ModelFacts
from inference.models.inspection.process import inspect_file
from inference.models.inspection.suffixes import check_suffix
from inference.models.locations import FileLocation
from inference.models.spec import ModelDescription, ModelSpec
from inference.settings import Settings

LABELS_FILE = "labels.txt"
_ARCHIVE = ".zip"
_DEFAULT_FOLDER = Path("models")
#: Linux's limit of one environment variable, less some reserve.
_MAX_VARIABLE_BYTES = 120_000


@dataclass(frozen=True)
class NamedModel:
    """A model that a command names.

    Args:
        entry: its entry of the setting `models`: a folder, or a document.
        specs: it and its variants, with their files on this host.
        described: None if a model.yaml describes it.
    """

    entry: str | dict[str, Any]
    specs: tuple[ModelSpec, ...]
    described: Described | None

    @property
    def summaries(self) -> list[str]:
        """One line for each model, with its known properties."""
        if self.described is not None:
            return [f"{self.specs[0].name}: {self.described.summary}"]
        return [f"{spec.name}: {_summary(spec)}" for spec in self.specs]


class ServedFiles:
    """Finds and describes the models that a command names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: folders and files that the named models add to the allowed ones
        self.allowed: list[Path] = list(settings.model_files.allowed_folders or (_DEFAULT_FOLDER,))
        #: the same of buckets
        self.allowed_buckets: list[str] = list(settings.model_files.allowed_buckets or (settings.model_bucket,))

    def read_all(self, names: Sequence[str], choices: Choices) -> list[NamedModel]:
        """Describe the models; the choices are for each of them. Raises the errors of `read`."""
        if len(names) > 1 and (choices.name or choices.labels):
            raise ConfigurationError("--name and --labels are for one model; a labels.txt beside each file is found")
        models = [self.read(name, choices) for name in names]
        counted = Counter(spec.name for model in models for spec in model.specs)
        if repeated := [name for name, count in counted.items() if count > 1]:
            raise ConfigurationError(
                f"several models are named {repeated[0]}; rename a file, or write a model.yaml with another name (models init)"
            )
        return models

    def read(self, name: str, choices: Choices) -> NamedModel:
        """Describe the model in a file, in a folder or at ``s3://BUCKET/KEY``.

        Raises:
            ConfigurationError: it does not exist, is no model, is refused, or leaves a choice open.
            ServiceUnavailable: the object store does not answer.
        """
        folder = Path(name)
        if "://" not in name and (folder / DESCRIPTION_FILE).is_file():
            return self._read_folder(folder, choices)
        location = self._allow_bucket(_location(name))
        if location.bucket is None:
            path = Path(location.text)
            if not path.exists():
                raise ConfigurationError(f"there is no file {name}")
            if path.suffix.lower() != _ARCHIVE:
                _check(lambda: check_suffix(path), name)
            self.allowed.append(path.resolve())  # not its folder, which may be a home: commands may name all that is allowed
        return self._read_file(location, choices)

    def _read_folder(self, folder: Path, choices: Choices) -> NamedModel:
        if choices.given:
            file, option = folder / DESCRIPTION_FILE, choices.given[0]
            raise ConfigurationError(f"{file} describes the model; change it, and leave {option} out")
        self.allowed.append(folder)
        descriptions = read_folder(folder)
        return NamedModel(str(folder.absolute()), tuple(self._resolve(each) for each in descriptions), None)

    def _read_file(self, location: FileLocation, choices: Choices) -> NamedModel:
        shown = PurePosixPath(location.text).name
        try:
            found = self._files.find(location, Path(), "file")
        except ObjectNotFound as error:
            raise ConfigurationError(error.detail) from error
        facts: ModelFacts = _check(lambda: inspect_file(found.path, file_limits(self._settings)), shown)
        labels = self._labels(location, choices, facts)
        described = describe(facts, file=shown, location=str(location), choices=choices, labels=labels)
        (description,) = read_document(described.document, folder=Path(), origin=shown)
        spec = self._resolve(description)
        if spec.labels and described.classes not in {None, len(spec.labels)}:
            raise ConfigurationError(
                f"{shown} has {described.classes} classes, and there are {len(spec.labels)} {labels.origin}", field="labels"
            )
        return NamedModel(dict(described.document), (spec,), described)

    def _labels(self, location: FileLocation, choices: Choices, facts: ModelFacts) -> LabelSource:
        if choices.labels is not None:
            chosen = self._allow_bucket(_location(choices.labels))
            if chosen.bucket is None:
                self.allowed.append(Path(chosen.text))
            return LabelSource({"labels_file": str(chosen)}, f"labels from {choices.labels}")
        beside = self._labels_beside(location)
        if beside is not None:
            return LabelSource({"labels_file": beside}, f"labels from {LABELS_FILE} beside it")
        if facts.labels_problem:
            shown = PurePosixPath(location.text).name
            raise ConfigurationError(f"{shown} {facts.labels_problem}; name the labels with --labels FILE", field="labels")
        if facts.labels:
            return LabelSource({"labels": list(facts.labels)}, "labels from its metadata")
        return LabelSource(origin="no labels, so results have class numbers alone")

    def _labels_beside(self, location: FileLocation) -> str | None:
        if location.bucket is None:
            path = Path(location.text).parent / LABELS_FILE
            if not path.is_file():
                return None
            self.allowed.append(path.resolve())
            return str(path)
        beside = f"{location.text.rpartition('/')[0]}/{LABELS_FILE}"
        try:
            self._files.find(FileLocation.parse(beside), Path(), "labels_file")
        except (ObjectNotFound, ValueError):
            return None
        return beside

    def _resolve(self, description: ModelDescription) -> ModelSpec:
        try:
            return self._files.resolve(description)
        except ObjectNotFound as error:
            raise ConfigurationError(error.detail, field=error.field) from error

    def _allow_bucket(self, location: FileLocation) -> FileLocation:
        if location.bucket is not None:
            self.allowed_buckets.append(location.bucket)
        return location

    @property
    def _files(self) -> ModelFiles:
        allowed = {"allowed_folders": tuple(self.allowed), "allowed_buckets": tuple(self.allowed_buckets)}
        options = self._settings.model_files.model_copy(update=allowed)
        return ModelFiles(self._settings.model_copy(update={"model_files": options}))


def serve_only(models: Sequence[NamedModel], files: ServedFiles) -> None:
    """Set the variables that make these models the service's own, for this process and its children.

    Args:
        files: have read them.

    Raises:
        ConfigurationError: labels in metadata are too large for a variable.
    """
    entries = json.dumps([model.entry for model in models])
    if len(entries.encode()) > _MAX_VARIABLE_BYTES:
        raise ConfigurationError("there are too many labels in the model's metadata; write them to a labels.txt beside it")
    os.environ["INFERENCE_MODELS"] = entries
    os.environ["INFERENCE_DEFAULT_MODEL"] = models[0].specs[0].name
    folders = [str(path.absolute()) for path in dict.fromkeys(files.allowed)]
    os.environ["INFERENCE_MODEL_FILES__ALLOWED_FOLDERS"] = json.dumps(folders)
    os.environ["INFERENCE_MODEL_FILES__ALLOWED_BUCKETS"] = json.dumps(list(dict.fromkeys(files.allowed_buckets)))


def for_its_folder(model: NamedModel) -> tuple[Described, Path] | None:
    """Return the description for a model.yaml beside the model, with relative paths of files there, and its path.

    For a model in a bucket that is the working directory; None if a model.yaml describes the model already.
    """
    if model.described is None:
        return None
    document = dict(model.described.document)
    file = document["file"]
    folder = Path.cwd() if file.startswith("s3://") else Path(file).parent
    for key in ("file", "labels_file"):
        if key in document and Path(document[key]).is_relative_to(folder):
            document[key] = str(Path(document[key]).relative_to(folder))
    return replace(model.described, document=document), folder / DESCRIPTION_FILE


def _location(text: str) -> FileLocation:
    """Parse a location, and make a path absolute. Raises ConfigurationError."""
    try:
        location = FileLocation.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{text}: {error}") from error
    return location if location.bucket is not None else replace(location, text=str(Path(location.text).absolute()))


def _check(read: Any, name: str) -> Any:
    try:
        return read()
    except ConfigurationError as error:
        raise ConfigurationError(f"{name} {error.detail}", field=error.field) from error


def _summary(spec: ModelSpec) -> str:
    files = " and ".join(PurePosixPath(file.location).name for file in spec.local_files.values())
    size = "x".join(map(str, spec.input.shape))
    code = f", runs the code {spec.code}" if spec.code else ""
    return f"{files}, images {size} {spec.input.dtype}, {len(spec.labels) or 'no'} labels{code}, as its model.yaml says"
