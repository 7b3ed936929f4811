"""Sections of ROHE's configuration files, as its own example files and code define them.

Three forms are in use: flat (`model_info` or `model`, `minio_config`, `mongodb`, `kafka`), grouped
(`model_info.load_model_params`, `external_services`) and nested (`model_config`, `storage`, `messaging`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from inference.array_metadata import parse_shape
from inference.errors import InvalidMetadata
from inference.settings.model_fields import Label, ModelName

_CHANNELS = (1, 3)


def _image_shape(value: object) -> tuple[int, ...]:
    try:
        shape = parse_shape(value)
    except InvalidMetadata as error:
        raise ValueError(f"must be height,width,channels, e.g. 32,32,3; {error.detail}") from error
    if len(shape) != 3 or shape[-1] not in _CHANNELS:  # noqa: PLR2004 height, width, channels
        raise ValueError("must be height,width,channels, with 1 or 3 channels, e.g. 32,32,3")
    return shape


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _not_empty(folders: dict[str, Any]) -> dict[str, Any]:
    if not folders:
        raise ValueError("must name at least one model")
    return folders


Text = Annotated[str, Field(min_length=1)]
Shape = Annotated[tuple[int, int, int], BeforeValidator(_image_shape)]
#: the id of a model becomes its name in `models`
ModelId = ModelName

Device = Annotated[str, BeforeValidator(_lower), Field(pattern=r"^(cpu|gpu(:\d{1,3})?)$")]


class _Section(BaseModel):
    # ROHE's own code converts numbers to texts: a password of digits is valid.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, protected_namespaces=())


class RoheMinio(_Section):
    endpoint_url: Text
    access_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    #: bucket of the models
    bucket_name: Text


class RoheMongodb(_Section):
    username: str = ""
    password: SecretStr = SecretStr("")
    host: Text = "localhost"
    port: int = Field(default=27017, ge=1, le=65535)
    database_name: Text | None = None
    collection_name: Text | None = None

    @model_validator(mode="after")
    def _credentials_are_a_pair(self) -> Self:
        if bool(self.username) != bool(self.password.get_secret_value()):
            raise ValueError("set both username and password, or neither")
        return self


class RoheKafka(_Section):
    address: Text | None = None
    topic_name: Text | None = None


class RoheFiles(_Section):
    architecture_file: Text
    weights_file: Text


class RoheFolder(_Section):
    folder: Text


class RoheLoadParams(RoheFiles):
    #: folder of each model, by id
    model_directories: Annotated[dict[ModelId, Text], AfterValidator(_not_empty)]


class RoheModelInfo(_Section):
    """Models that differ only in their folder."""

    chosen_model_id: ModelId
    input_shape: Shape
    #: names of the files in each model's folder; without `models`, the paths of the files
    files_name: RoheFiles | None = None
    files: RoheFiles | None = None
    models: dict[ModelId, RoheFolder] | None = None
    load_model_params: RoheLoadParams | None = None

    @model_validator(mode="after")
    def _files_are_named_once(self) -> Self:
        named = [name for name in ("files_name", "files", "load_model_params") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"needs one of files_name, files and load_model_params, and has {' and '.join(named) or 'none'}")
        if self.load_model_params and self.models is not None:
            raise ValueError("models needs files_name; with load_model_params use its model_directories")
        return self

    @property
    def file_names(self) -> tuple[str, RoheFiles]:
        """The key that names the files, and its value."""
        key = next(name for name in ("files_name", "files", "load_model_params") if getattr(self, name) is not None)
        return key, getattr(self, key)


class RoheModel(_Section):
    """Oldest form: one model by its files."""

    model_id: ModelId = "model"
    files: RoheFiles
    input_shape: Shape


class RoheVariant(_Section):
    """Model of a type; its values take precedence over those of the type."""

    #: folder of the model's files
    path: Text | None = None
    description: str | None = None
    input_shape: Shape | None = None
    architecture_file: Text | None = None
    weights_file: Text | None = None
    output_labels: list[Label] | None = None


class RoheModelType(_Section):
    description: str = ""
    input_shape: Shape
    architecture_file: Text
    weights_file: Text
    #: in class order
    output_labels: list[Label] | None = None
    #: by model id; None: the type is one model
    variants: dict[ModelId, RoheVariant] | None = None


class RoheModelConfig(_Section):
    chosen_model_type: Text
    chosen_model_id: ModelId | None = None
    #: milliseconds
    inference_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    inference_backend: Annotated[Literal["tensorflow"] | None, BeforeValidator(_lower)] = None
    #: a lower confidence is no decision; None: the most likely class is always the decision
    default_threshold: float | None = Field(default=None, ge=0, le=1)
    preferred_device: Device | None = None
    model_type: Annotated[dict[Text, RoheModelType], AfterValidator(_not_empty)]
    #: draft of another form in ROHE's example file; ROHE does not read it either
    object_classification: Any = None


class RoheStorage(_Section):
    minio: RoheMinio | None = None
    mongodb: RoheMongodb | None = None


class RoheMessaging(_Section):
    kafka: RoheKafka | None = None


class RoheExternalServices(_Section):
    minio_storage: RoheMinio | None = None
    mongodb: RoheMongodb | None = None
    kafka: RoheKafka | None = None
    #: address of Consul, not used here
    service_registry: Any = None


#: Sections that only ROHE's files have.
SECTIONS: dict[str, type[BaseModel]] = {
    "model_info": RoheModelInfo,
    "model": RoheModel,
    "model_config": RoheModelConfig,
    "minio_config": RoheMinio,
    "storage": RoheStorage,
    "messaging": RoheMessaging,
    "external_services": RoheExternalServices,
}
#: Sections that both have; they may contain ROHE's keys together with ours.
SHARED: dict[str, type[BaseModel]] = {"mongodb": RoheMongodb, "kafka": RoheKafka}
#: Sections that have no use here.
UNUSED = ("qoa_config", "service_quality_config")
