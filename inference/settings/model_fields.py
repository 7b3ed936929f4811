"""Fields that settings and model descriptions check in the same way: a model's name and the labels of its classes."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

BYTE_ORDER_MARK = "\ufeff"


def clean_label(label: str) -> str:
    """Remove byte order marks, and blanks at the ends of a label. Raises ValueError if the rest is empty."""
    cleaned = label.replace(BYTE_ORDER_MARK, "").strip()
    if not cleaned:
        raise ValueError("a label must not be empty")
    return cleaned


def _is_no_yaml_constant(label: object) -> object:
    if label is None or isinstance(label, bool):
        raise ValueError(f"YAML reads it as {json.dumps(label)}; put it into quotes")
    return label


ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
#: label of one class
Label = Annotated[str, BeforeValidator(_is_no_yaml_constant), AfterValidator(clean_label)]
