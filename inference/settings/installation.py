"""Place of the application's own files, and the defaults that differ in a wheel from those in a clone or a container."""

from __future__ import annotations

import os
from pathlib import Path

from inference.errors import ConfigurationError

#: Name of the wheel's command and of its folder below the user's state folder.
_NAME = "rohe-inference-service"
#: Folder with server.py, configurations/, models/ and samples/.
APPLICATION = Path(__file__).resolve().parents[2]
#: The wheel has the application in its package, deploy/wheel/rohe_inference_service.
IS_WHEEL = APPLICATION.parent.name == "rohe_inference_service"
#: Command that the user typed, for messages.
COMMAND = _NAME if IS_WHEEL else "server.py"


def default_model() -> Path:
    """Return the folder of the model in the repository; from a wheel it is used in any working directory."""
    folder = Path("models/efficientnet-lite0")
    return APPLICATION / folder if IS_WHEEL else folder


def default_data_dir() -> Path:
    """Return `data`; for a wheel, the service's folder in the user's state folder (XDG Base Directory Specification).

    A user who types the wheel's command in some folder may have own files in `data` there, and the service deletes old uploads.

    Raises:
        ConfigurationError: the user has no home folder.
    """
    if not IS_WHEEL:
        return Path("data")
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    if named.is_absolute():
        return named / _NAME
    try:
        return Path.home() / ".local" / "state" / _NAME
    except RuntimeError as error:
        raise ConfigurationError("data_dir: this user has no home folder; set data_dir", field="data_dir") from error
