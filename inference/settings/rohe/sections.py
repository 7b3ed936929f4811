"""The sections of the seed's configuration files: what may be in them, as its own files and code have it.

Three forms exist side by side: flat (`model_info` or `model`, `minio_config`, `mongodb`, `kafka`), grouped
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
        raise ValueError("must name a model")
    return folders


Text = Annotated[str, Field(min_length=1)]
Shape = Annotated[tuple[int, int, int], BeforeValidator(_image_shape)]
#: a model's id here is its name in `models`
ModelId = ModelName

Device = Annotated[str, BeforeValidator(_lower), Field(pattern=r"^(cpu|gpu(:\d{1,3})?)$")]


class _Section(BaseModel):
    # Its own code puts numbers into texts: a password of digits is fine.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, protected_namespaces=())


class SeedMinio(_Section):
    endpoint_url: Text
    access_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    #: of the models
    bucket_name: Text


class SeedMongodb(_Section):
    username: str = ""
    password: SecretStr = SecretStr("")
    host: Text = "localhost"
    port: int = Field(default=27017, ge=1, le=65535)
    database_name: Text | None = None
    collection_name: Text | None = None

    @model_validator(mode="after")
    def _credentials_come_together(self) -> Self:
        if bool(self.username) != bool(self.password.get_secret_value()):
            raise ValueError("username and password come together")
        return self


class SeedKafka(_Section):
    address: Text | None = None
    topic_name: Text | None = None


class SeedFiles(_Section):
    architecture_file: Text
    weights_file: Text


class SeedFolder(_Section):
    folder: Text


class SeedLoadParams(SeedFiles):
    #: folder of each model, by id
    model_directories: Annotated[dict[ModelId, Text], AfterValidator(_not_empty)]


class SeedModelInfo(_Section):
    """Models that differ in their folder alone."""

    chosen_model_id: ModelId
    input_shape: Shape
    #: names of the files in each model's folder; without `models`, their paths
    files_name: SeedFiles | None = None
    files: SeedFiles | None = None
    models: dict[ModelId, SeedFolder] | None = None
    load_model_params: SeedLoadParams | None = None

    @model_validator(mode="after")
    def _files_are_named_once(self) -> Self:
        named = [name for name in ("files_name", "files", "load_model_params") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"needs one of files_name, files and load_model_params, and has {' and '.join(named) or 'none'}")
        if self.load_model_params and self.models is not None:
            raise ValueError("models goes with files_name; load_model_params has model_directories")
        return self

    @property
    def file_names(self) -> tuple[str, SeedFiles]:
        """The key that names the files, and what it says."""
        key = next(name for name in ("files_name", "files", "load_model_params") if getattr(self, name) is not None)
        return key, getattr(self, key)


class SeedModel(_Section):
    """The oldest form: one model by its files."""

    model_id: ModelId = "model"
    files: SeedFiles
    input_shape: Shape


class SeedVariant(_Section):
    """A model of its type; what it says goes before what the type says."""

    #: folder of its files
    path: Text | None = None
    description: str | None = None
    input_shape: Shape | None = None
    architecture_file: Text | None = None
    weights_file: Text | None = None
    output_labels: list[Label] | None = None


class SeedModelType(_Section):
    description: str = ""
    input_shape: Shape
    architecture_file: Text
    weights_file: Text
    #: in class order
    output_labels: list[Label] | None = None
    #: by model id; none: the type is one model
    variants: dict[ModelId, SeedVariant] | None = None


class SeedModelConfig(_Section):
    chosen_model_type: Text
    chosen_model_id: ModelId | None = None
    #: milliseconds
    inference_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    inference_backend: Annotated[Literal["tensorflow"] | None, BeforeValidator(_lower)] = None
    #: a confidence under it is no decision; none: the most likely class
    default_threshold: float | None = Field(default=None, ge=0, le=1)
    preferred_device: Device | None = None
    model_type: Annotated[dict[Text, SeedModelType], AfterValidator(_not_empty)]
    #: a draft of another form that stands in its example file; not read there either
    object_classification: Any = None


class SeedStorage(_Section):
    minio: SeedMinio | None = None
    mongodb: SeedMongodb | None = None


class SeedMessaging(_Section):
    kafka: SeedKafka | None = None


class SeedExternalServices(_Section):
    minio_storage: SeedMinio | None = None
    mongodb: SeedMongodb | None = None
    kafka: SeedKafka | None = None
    #: Consul
    service_registry: Any = None


#: Sections that only the seed has.
SECTIONS: dict[str, type[BaseModel]] = {
    "model_info": SeedModelInfo,
    "model": SeedModel,
    "model_config": SeedModelConfig,
    "minio_config": SeedMinio,
    "storage": SeedStorage,
    "messaging": SeedMessaging,
    "external_services": SeedExternalServices,
}
#: Sections that both have; seed's keys and ours may stand side by side there.
SHARED: dict[str, type[BaseModel]] = {"mongodb": SeedMongodb, "kafka": SeedKafka}
#: Sections that have no use here.
UNUSED = ("qoa_config", "service_quality_config")
