"""Section of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from inference.settings.value_checks import Section


def _log_level(value: Any) -> Any:
    """Return the level in capitals; WARN becomes WARNING, as in Python's logging."""
    level = value.upper() if isinstance(value, str) else value
    return "WARNING" if level == "WARN" else level


LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_log_level)]
LoggerName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w-]*(\.[\w-]+)*$")]


class LogSettings(Section):
    """Lines on standard error of all processes."""

    #: lowest level of the lines
    level: LogLevel = "INFO"
    #: the same by module, `inference.relay` for example, or by logger of a library; names below it are included
    levels: Mapping[LoggerName, LogLevel] = Field(default_factory=dict)
    #: auto: text on a terminal, JSON elsewhere
    format: Literal["auto", "text", "json"] = "auto"
    #: one line for each HTTP request, of the logger `access`
    access: bool = True
