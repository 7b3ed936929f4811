"""Translation of ROHE's configuration files to our settings.

    document ──translate──▶ document in our keys, the setting of each of ROHE's keys, unused keys

Our own keys stay unchanged, so one file may contain both. A setting that both give is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from pydantic import BaseModel, ValidationError

from inference.errors import ConfigurationError
from inference.settings.masked_text import explain
from inference.settings.rohe import sections
from inference.settings.rohe.paths import located

#: Our names of the keys of `model_config` that apply to all models, and of the keys of a type or variant.
_OF_ALL_MODELS = {"inference_timeout": "predict_timeout_s", "default_threshold": "threshold", "preferred_device": "device"}
_OF_A_MODEL = {
    "description": "description",
    "input_shape": "input.shape",
    "architecture_file": "architecture_file",
    "weights_file": "weights_file",
    "output_labels": "labels",
}


@dataclass(frozen=True)
class TranslatedKey:
    """Key of ROHE, the setting that it became (`models.NAME` is the model of that name), and the setting's value."""

    key: str
    setting: str
    value: Any


@dataclass(frozen=True)
class Translation:
    """Configuration in our keys, and the origin of its settings."""

    document: dict[str, Any]
    translated: tuple[TranslatedKey, ...] = ()
    #: keys that this service does not use
    unused: tuple[str, ...] = ()

    @property
    def rohe_keys(self) -> dict[str, str]:
        """ROHE's key of each setting, for errors."""
        return {entry.setting: entry.key for entry in self.translated}


def translate(document: Mapping[str, Any], *, rohe: Path | None = None) -> Translation:
    """Translate ROHE's sections of a configuration file to our settings.

    Args:
        document: content of the file; other sections stay unchanged.
        rohe: folder of ROHE's source, in which folders of models that begin with ``/`` are searched if they do not exist on
            this machine: see `paths.located`.

    Raises:
        ConfigurationError: one line for each wrong key, by its name in the file.
    """
    ours, theirs = _split(document)
    unused = [key for key in sections.UNUSED if key in document]
    if not theirs and not unused:
        return Translation(dict(document))
    translator = _Translator(ours, rohe, unused)
    for key, section in _read_all(theirs).items():
        translator.translate(key, section)
    translator.note_common_keys(document)
    if translator.problems:
        raise ConfigurationError("\n".join(translator.problems))
    return Translation(translator.document, tuple(translator.translated), tuple(translator.unused))


def _split(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide a document into our sections and ROHE's."""
    ours = {key: value for key, value in document.items() if key not in sections.SECTIONS and key not in sections.UNUSED}
    theirs = {key: document[key] for key in sections.SECTIONS if document.get(key) is not None}
    for key, kind in sections.SHARED.items():
        section = ours.get(key)
        if isinstance(section, dict) and section.keys() & kind.model_fields.keys():
            theirs[key] = {name: value for name, value in section.items() if name in kind.model_fields}
            ours[key] = {name: value for name, value in section.items() if name not in kind.model_fields}
    return ours, theirs


def _read_all(theirs: Mapping[str, Any]) -> dict[str, BaseModel]:
    found: dict[str, BaseModel] = {}
    problems: list[str] = []
    for key, value in theirs.items():
        kind = (sections.SECTIONS | sections.SHARED)[key]
        try:
            found[key] = kind.model_validate(value)
        except ValidationError as error:
            problems += [explain(problem, section=kind, prefix=key) for problem in error.errors()]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return found


class _Translator:
    """Writes settings to `document`, and records the key that each came from."""

    def __init__(self, document: dict[str, Any], rohe: Path | None, unused: list[str]) -> None:
        self.document = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
        self.translated: list[TranslatedKey] = []
        self.unused = unused
        self.problems: list[str] = []
        self._rohe = rohe

    def translate(self, key: str, section: BaseModel) -> None:
        match section:
            case sections.RoheModelInfo():
                self._model_info(key, section)
            case sections.RoheModel():
                self._one_model(key, section)
            case sections.RoheModelConfig():
                self._model_config(key, section)
            case sections.RoheMinio():
                self._minio(key, section)
            case sections.RoheMongodb():
                self._mongodb(key, section)
            case sections.RoheKafka():
                self._kafka(key, section)
            case sections.RoheStorage() | sections.RoheMessaging() | sections.RoheExternalServices():
                for name in type(section).model_fields:
                    self._member(f"{key}.{name}", getattr(section, name))

    def note_common_keys(self, document: Mapping[str, Any]) -> None:
        if "pipeline_id" in document:
            self.translated.append(TranslatedKey("pipeline_id", "pipeline_id", document["pipeline_id"]))
        if isinstance(document.get("ensemble"), bool):
            self.translated.append(TranslatedKey("ensemble", "sinks", ["kafka"] if document["ensemble"] else ["mongodb"]))

    def _member(self, key: str, value: Any) -> None:
        if isinstance(value, BaseModel):
            self.translate(key, value)
        elif value is not None:
            self.unused.append(key)

    def _minio(self, key: str, section: sections.RoheMinio) -> None:
        self._put(f"{key}.endpoint_url", "s3.endpoint", section.endpoint_url)
        for name in ("access_key", "secret_key"):
            if name in section.model_fields_set:
                self._put(f"{key}.{name}", f"s3.{name}", getattr(section, name))
        self._put(f"{key}.bucket_name", "model_files.bucket", section.bucket_name)
        self._put_unless_set(key, "uploads.store", "s3")
        self._put_unless_set(f"{key}.bucket_name", "uploads.bucket", section.bucket_name)

    def _mongodb(self, key: str, section: sections.RoheMongodb) -> None:
        parts = sorted(section.model_fields_set & {"username", "password", "host", "port"})
        if parts:
            password = section.password.get_secret_value()
            login = f"{quote_plus(section.username)}:{quote_plus(password)}@" if section.username else ""
            url = f"mongodb://{login}{section.host}:{section.port}"
            *others, named = sorted(parts, key=("username", "password", "port", "host").index)
            self._put(f"{key}.{named}", "mongodb.url", url)
            # Before the last entry, which errors name: user name and password cannot be wrong, since they are percent-encoded.
            self.translated[-1:-1] = [TranslatedKey(f"{key}.{part}", "mongodb.url", url) for part in others]
        if section.database_name is not None:
            self._put(f"{key}.database_name", "mongodb.database", section.database_name)
        if section.collection_name is not None:
            self._put(f"{key}.collection_name", "mongodb.collection", section.collection_name)

    def _kafka(self, key: str, section: sections.RoheKafka) -> None:
        if section.address is not None:
            self._put(f"{key}.address", "kafka.bootstrap_servers", section.address)
        if section.topic_name is not None:
            self._put(f"{key}.topic_name", "kafka.topic", section.topic_name)

    def _model_info(self, key: str, section: sections.RoheModelInfo) -> None:
        files_key, files = section.file_names
        if section.load_model_params is not None:
            folders = {
                name: (f"{key}.load_model_params.model_directories.{name}", folder)
                for name, folder in section.load_model_params.model_directories.items()
            }
        elif section.models is not None:
            folders = {name: (f"{key}.models.{name}.folder", model.folder) for name, model in section.models.items()}
        else:
            folders = {section.chosen_model_id: (f"{key}.chosen_model_id", "")}
        for name, (folder_key, folder) in folders.items():
            self._add_model(folder_key, name, folder, files, {"input": _input(section.input_shape)})
        for name in ("architecture_file", "weights_file"):
            self._note_for_all(f"{key}.{files_key}", name, getattr(files, name), name)
        self._note_for_all(key, "input_shape", section.input_shape, "input.shape")
        self._serve(f"{key}.chosen_model_id", section.chosen_model_id, {name: name for name in folders})

    def _one_model(self, key: str, section: sections.RoheModel) -> None:
        self._add_model(f"{key}.files", section.model_id, "", section.files, {"input": _input(section.input_shape)})
        self._note_for_all(key, "input_shape", section.input_shape, "input.shape")
        self._serve(f"{key}.model_id", section.model_id, {section.model_id: section.model_id})

    def _model_config(self, key: str, section: sections.RoheModelConfig) -> None:
        shared = self._shared_by_all(key, section)
        names = _model_names(section)
        for type_name, kind in section.model_type.items():
            self._model_type(f"{key}.model_type.{type_name}", type_name, kind, names[type_name], shared)
        if section.chosen_model_type in names:
            known = names[section.chosen_model_type]
            self._serve(f"{key}.chosen_model_id", section.chosen_model_id or next(iter(known)), known)
            self.translated.append(TranslatedKey(f"{key}.chosen_model_type", "default_model", self.document.get("default_model")))
        else:
            self._no_such(f"{key}.chosen_model_type", section.chosen_model_type, names)
        if section.object_classification is not None:
            self.unused.append(f"{key}.object_classification")

    def _shared_by_all(self, key: str, section: sections.RoheModelConfig) -> dict[str, Any]:
        shared: dict[str, Any] = {}
        if section.inference_timeout is not None:
            shared["predict_timeout_s"] = section.inference_timeout / 1000
        if section.default_threshold is not None:
            shared["threshold"] = section.default_threshold
        if section.preferred_device is not None:
            shared["device"] = section.preferred_device
        for name, setting in _OF_ALL_MODELS.items():
            if name in section.model_fields_set:
                self._note_for_all(key, name, shared.get(setting), setting)
        return shared

    def _model_type(
        self, key: str, type_name: str, kind: sections.RoheModelType, names: Mapping[str, str], shared: Mapping[str, Any]
    ) -> None:
        for part, setting in _OF_A_MODEL.items():
            if part in kind.model_fields_set:
                self._note_for_all(key, part, getattr(kind, part), setting)
        for name, variant in (kind.variants or {type_name: sections.RoheVariant()}).items():
            values = kind.model_dump(exclude={"variants"}, exclude_none=True) | variant.model_dump(exclude_none=True)
            more = dict(shared) | {"input": _input(values["input_shape"])}
            more |= {"description": values["description"]} if values["description"] else {}
            more |= {"labels": values["output_labels"]} if "output_labels" in values else {}
            files = sections.RoheFiles(architecture_file=values["architecture_file"], weights_file=values["weights_file"])
            place = f"{key}.variants.{name}" if kind.variants else key
            self._add_model(place, names[name], values.get("path", ""), files, more)

    def _add_model(self, key: str, name: str, folder: str, files: sections.RoheFiles, more: Mapping[str, Any]) -> None:
        architecture, weights = located(folder, (files.architecture_file, files.weights_file), self._rohe)
        model = {"name": name, "architecture_file": architecture, "weights_file": weights}
        self.translated.append(TranslatedKey(key, f"models.{name}", {k: v for k, v in model.items() if k != "name"}))
        models = self.document.setdefault("models", [])
        if isinstance(models, list):  # else the settings report the error
            self.document["models"] = [*models, model | dict(more)]

    def _serve(self, key: str, model_id: str, names: Mapping[str, str]) -> None:
        """Set the default model. `names`: our name of each model, by id."""
        if model_id in names:
            self._put(key, "default_model", names[model_id])
        else:
            self._no_such(key, model_id, names)

    def _no_such(self, key: str, name: str, known: Iterable[str]) -> None:
        near = difflib.get_close_matches(name, list(known), n=1)
        self.problems.append(f"{key}: there is no {name}" + (f"; did you mean {near[0]}?" if near else ""))

    def _note_for_all(self, key: str, name: str, value: Any, setting: str) -> None:
        self.translated.append(TranslatedKey(f"{key}.{name}", f"models.*.{setting}", value))

    def _put(self, key: str, setting: str, value: Any) -> None:
        section, _, name = setting.rpartition(".")
        place = self.document.setdefault(section, {}) if section else self.document
        if not isinstance(place, dict):
            return  # the settings report the error
        if name in place:
            other = next((entry.key for entry in self.translated if entry.setting == setting), setting)
            self.problems.append(f"{key}: {other} sets the same value; keep one of them")
            return
        place[name] = value
        self.translated.append(TranslatedKey(key, setting, value))

    def _put_unless_set(self, key: str, setting: str, value: Any) -> None:
        section, _, name = setting.rpartition(".")
        place = self.document.get(section)
        if not isinstance(place, dict) or name not in place:
            self._put(key, setting, value)


def _model_names(section: sections.RoheModelConfig) -> dict[str, dict[str, str]]:
    """Return our name of each model, by type and id: the id, or TYPE.ID if another type has the same id.

    The chosen type keeps its ids, since `load_new_model` names them."""
    names: dict[str, dict[str, str]] = {}
    taken: set[str] = set()
    for name, kind in sorted(section.model_type.items(), key=lambda item: item[0] != section.chosen_model_type):
        ids = list(kind.variants or (name,))
        names[name] = {model_id: f"{name}.{model_id}" if model_id in taken else model_id for model_id in ids}
        taken.update(ids)
    return names


def _input(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the description of a model's input: as in ROHE, the model gets the array unchanged, as float32."""
    return {"shape": list(shape), "dtype": "float32", "raw": "model_ready"}
