"""Base classes and types of the settings' sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from inference.settings import addresses
from inference.settings.masking import shown_value

#: Redis counts milliseconds in 64 bits.
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**53)]
#: number of threads or processes
Few = Annotated[int, Field(ge=1, le=1024)]

#: Hours for which data is kept.
RetentionHours = Annotated[float, Field(gt=0, le=876_000, allow_inf_nan=False)]


def or_none(value: Any) -> Any:
    """Convert `none` and `null`, the spellings for environment variables, to None."""
    return None if isinstance(value, str) and value.strip().lower() in {"none", "null"} else value


def secret_validator(check: Callable[[str], str]) -> AfterValidator:
    """Return a validator that applies `check` to the text of a secret."""

    def checked(secret: SecretStr) -> SecretStr:
        check(secret.get_secret_value())
        return secret

    return AfterValidator(checked)


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    """Return the type of a field, and the members if it is a union."""
    return field.annotation, *get_args(field.annotation)


class FieldChecks:
    """Checks of all settings, of any type; `repr` masks the secrets in URLs."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():  # type: ignore[misc] # an attribute of the class that uses this mixin
            yield name, shown_value(value)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        fields: Mapping[str, FieldInfo] = cls.model_fields  # type: ignore[attr-defined] # an attribute of the class that uses this mixin
        field = fields[str(info.field_name)]
        if isinstance(value, bool) and bool not in _kinds(field):
            raise ValueError("must not be true or false")
        if isinstance(value, str) and not value and Path in _kinds(field):
            raise ValueError("must not be empty")
        return addresses.check_text(value)


class Section(FieldChecks, BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TlsSection(Section):
    """Files of certificates, in PEM; they are read by the part that connects."""

    #: authorities that sign the server's certificate; default: those of the system
    ca_file: Path | None = None
    #: certificate of this client, if the server asks for one
    cert_file: Path | None = None
    #: key of `cert_file`
    key_file: Path | None = None

    @property
    def has_tls_files(self) -> bool:
        return any((self.ca_file, self.cert_file, self.key_file))

    @model_validator(mode="after")
    def _certificate_and_key_are_a_pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; set both or neither")
        return self
