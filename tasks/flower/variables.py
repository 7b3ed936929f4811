"""Check of the `FLOWER_…` variables before Flower reads them: Flower would end with a traceback at an invalid value."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from inference.settings.variables import is_service_link

_PREFIX = "FLOWER_"


def drop_service_links() -> None:
    """Remove variables that Kubernetes sets for a Service named flower: Flower would read its port from FLOWER_PORT=tcp://…."""
    for name, value in list(os.environ.items()):
        if name.startswith(_PREFIX) and is_service_link(name, value):
            del os.environ[name]


def is_flower() -> bool:
    """Return whether this process is Flower."""
    return "flower" in sys.argv[1:]


def check_flower_variables() -> None:
    """End this process with a line for each variable whose value has the wrong type."""
    from flower.options import default_options  # type: ignore[import-untyped] # noqa: PLC0415 a worker needs no Flower
    from flower.utils import strtobool  # type: ignore[import-untyped] # noqa: PLC0415

    readers: dict[type, tuple[Callable[[str], Any], str]] = {
        int: (int, "a whole number"),
        float: (float, "a number"),
        bool: (strtobool, "true or false"),
    }
    wrong = []
    for name, value in os.environ.items():
        option = default_options._options.get(name.removeprefix(_PREFIX).lower().replace("_", "-"))  # noqa: SLF001
        if name.startswith(_PREFIX) and option is not None and option.type in readers and not option.multiple:
            read, kind = readers[option.type]
            try:
                read(value)
            except ValueError:
                wrong.append(f"error: {name} must be {kind} (got {value!r})\n")
    if wrong:
        sys.stderr.writelines(wrong)
        sys.exit(2)
