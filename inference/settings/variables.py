"""Environment variables of the service: detection of mistyped names, and of variables that Kubernetes sets for each Service."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from pydantic import BaseModel, SecretStr

from inference.settings.renamed_keys import RENAMED, RENAMED_SECTIONS
from inference.settings.schema import Settings

PREFIX = "INFERENCE_"
#: Environment variable that names the configuration file.
CONFIG_VARIABLE = "INFERENCE_CONFIG"

_NESTED = "__"
#: The variables of a Service: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_PROTOCOL = r"(?:TCP|UDP|SCTP)"
_SERVICE_LINKS = tuple(
    (re.compile(name, re.IGNORECASE), re.compile(value, re.IGNORECASE))
    for name, value in (
        (r".+_SERVICE_HOST", r"[\w.:\[\]-]+"),
        (r".+_SERVICE_PORT(?:_\w+)?", r"\d+"),
        (rf".+_PORT(?:_\d+_{_PROTOCOL})?", r"(?:tcp|udp|sctp)://\S+"),
        (rf".+_PORT_\d+_{_PROTOCOL}_PROTO", r"tcp|udp|sctp"),
        (rf".+_PORT_\d+_{_PROTOCOL}_PORT", r"\d+"),
        (rf".+_PORT_\d+_{_PROTOCOL}_ADDR", r"[\w.:\[\]-]+"),
    )
)


def is_service_link(name: str, value: str) -> bool:
    """Whether name and value have the form of a variable that Kubernetes sets for a Service."""
    return any(names.fullmatch(name) and values.fullmatch(value) for names, values in _SERVICE_LINKS)


def is_port_link(name: str, value: str) -> bool:
    """Whether it is a Service's `NAME_PORT=tcp://ADDRESS:PORT`, a name that other programs use for a number."""
    return name.upper().endswith("_PORT") and "://" in value and is_service_link(name, value)


def unknown_variables(variables: Mapping[str, str | None]) -> Iterator[str]:
    """Yield a sentence for each unknown variable with our prefix. The settings report wrong keys inside a section."""
    known = dict(_variables_of(Settings))
    renamed = {f"{PREFIX}{old.upper()}" for old in RENAMED if "." not in old}
    sections = {f"{PREFIX}{old}".upper(): f"{PREFIX}{new}".upper() for old, new in RENAMED_SECTIONS.items()}
    for name, value in variables.items():
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in {CONFIG_VARIABLE, *renamed} or is_service_link(name, value or ""):
            continue
        first, nested, rest = upper.partition(_NESTED)
        first = sections.get(first, first)
        if first not in known or (nested and (not known[first] or not rest)):
            yield f"{name}: unknown setting" + _nearest(upper, known)


def secret_variables() -> Iterator[str]:
    """Yield the variable of each setting with a secret, which may come from a file instead; URLs may contain a password."""
    for name, section in Settings.model_fields.items():
        for kind in filter(_is_section, (section.annotation, *get_args(section.annotation))):
            for key, field in kind.model_fields.items():
                if key == "url" or SecretStr in (field.annotation, *get_args(field.annotation)):
                    yield f"{PREFIX}{name}{_NESTED}{key}".upper()


def _nearest(name: str, known: Mapping[str, Iterable[str]]) -> str:
    """Return a suggestion for a mistyped name; wrong underscores, the most frequent mistake, are tried first."""
    full = [*known, *(f"{section}{_NESTED}{key}" for section, keys in known.items() for key in keys)]
    by_letters = {variable.replace("_", ""): variable for variable in full}
    near = difflib.get_close_matches(name, full, n=1, cutoff=0.7)
    found = by_letters.get(name.replace("_", "")) or (near[0] if near else None)
    return f"; did you mean {found}?" if found else ""


def _variables_of(settings: type[BaseModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the variable of each setting and section, with the keys of a section in capitals."""
    for name, field in settings.model_fields.items():
        kind = next((kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)), None)
        keys = tuple(key.upper() for key in kind.model_fields) if kind else ()
        yield f"{PREFIX}{name.upper()}", keys


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
