"""Checks of files, folders and limits that the settings name, before a part of the service starts: all errors at once, by key.

The checks leave no file behind, also in `check-config`, and connect to no server.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from inference.errors import ConfigurationError
from inference.keys.key_file import read_key_file
from inference.models.predictor.device_lock import gpu_index, host_has_gpu
from inference.models.registry import ModelRegistry, described_models
from inference.runtime.open_files import OPEN_FILES, raise_open_file_limit
from inference.runtime.private_files import is_open_to_others
from inference.runtime.redis import embedded_socket, socket_folder_problem
from inference.settings import Settings
from inference.settings.redis_address import MAX_SOCKET_PATH
from inference.sinks import open_sink
from inference.sinks.webhook import webhook_guard
from inference.storage import open_object_store

logger = logging.getLogger(__name__)

Part = Literal["everything", "api", "worker", "relay", "broker", "flower"]

_WITH_UPLOADS = ("everything", "api", "worker", "relay")
_WITH_SINKS = ("everything", "relay")
_WITH_WEBHOOKS = ("everything", "api", "relay")
#: Parts with files in `data_dir` by which a user who may replace them could control the part.
_WITH_OWN_STATE = ("everything", "broker", "flower")
_WITH_KEYS = ("everything", "api", "relay")
_WITH_MODELS = ("everything", "api", "worker")
_WITH_TRACES = ("everything", "api", "worker", "relay")
_MAX_NAME_BYTES = 255
#: Linux's limit, without the zero byte at the end, less the name of a file in the folder.
_MAX_PATH_BYTES = 4095 - _MAX_NAME_BYTES
_BLOCK_BYTES = 4096
#: Open files that every part needs at least.
_MIN_OPEN_FILES = 200


def check_start(settings: Settings, part: Part) -> None:
    """Raise ConfigurationError with one line for each setting with which this part cannot work on this host."""
    if part in _WITH_OWN_STATE and is_open_to_others(settings.data_dir):
        logger.warning("data_dir: other users can replace files in %s; prevent this with chmod go-w", settings.data_dir)
    problems = [*_folder_problems(settings, part), *_client_problems(settings, part), *_security_problems(settings, part)]
    if part in _WITH_TRACES and settings.tracing.is_on:
        problems += _tracing_problems(settings)
    if part == "everything":
        problems += _sample_problems(settings)
    if part in {"everything", "worker"}:
        problems += _gpu_problems(settings)
    if problems:
        raise ConfigurationError("\n".join(problems))


def check_everything(settings: Settings) -> ModelRegistry:
    """Check as `check_start` does, and load the models and check their files. Raises ConfigurationError, ServiceUnavailable."""
    problems: list[str] = []
    checks: tuple[Callable[[], None], ...] = (lambda: check_start(settings, "everything"), check_open_files)
    for check in checks:
        try:
            check()
        except ConfigurationError as error:
            problems.append(error.detail)
    try:
        models = ModelRegistry.load(settings)
    except ConfigurationError as error:
        raise ConfigurationError("\n".join([*problems, error.detail]), field=error.field) from error
    if problems:
        raise ConfigurationError("\n".join(problems))
    return models


def check_open_files(files: int = OPEN_FILES) -> None:
    """Raise the limit of open files to `files`, if the system allows it. Raises ConfigurationError if far too few are allowed."""
    allowed = raise_open_file_limit(files)
    if allowed < _MIN_OPEN_FILES:
        raise ConfigurationError(f"this process may open {allowed} files and needs {_MIN_OPEN_FILES} or more (ulimit -n)")


def folder_problem(folder: Path) -> str | None:
    """Return the reason for which no file can be created in `folder`, which may not exist yet; None if one can."""
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if any(len(os.fsencode(name)) > _MAX_NAME_BYTES for name in folder.parts):
        return f"a name in {folder} has more than {_MAX_NAME_BYTES} bytes"
    if len(os.fsencode(folder)) > _MAX_PATH_BYTES:
        return f"a path has at most {_MAX_PATH_BYTES} bytes"
    if not os.path.isdir(nearest):  # noqa: PTH112 Path.is_dir raises if a folder may not be read
        return f"{nearest} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=nearest, buffering=0) as file:
            file.write(bytes(_BLOCK_BYTES))  # a full disk accepts the name, but not the content
    except OSError as error:
        return f"cannot write to {nearest}: {error.strerror}"
    return None


def _folder_problems(settings: Settings, part: Part) -> Iterator[str]:
    found = ((key, folder_problem(folder)) for key, folder in _folders(settings, part))
    yield from dict.fromkeys(f"{key}: {problem}" for key, problem in found if problem)
    if settings.is_embedded and part in {"everything", "broker"}:
        with suppress(OSError, RuntimeError):  # a loop of links, which `folder_problem` reports
            socket = embedded_socket(settings.data_dir)
            if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
                yield f"data_dir: the path of the broker's socket, {socket}, has more than {MAX_SOCKET_PATH} bytes"
            elif problem := socket_folder_problem(settings.data_dir, make=False):
                yield problem
    if "jsonl" in settings.possible_sinks and part in _WITH_SINKS:
        yield from _jsonl_problems(settings)


def _folders(settings: Settings, part: Part) -> Iterator[tuple[str, Path]]:
    """Yield the folders that this part writes to, each with the key that names it."""
    if settings.is_embedded and part in {"everything", "broker"}:
        yield "data_dir", settings.data_dir / "broker"
    if part == "flower":
        yield "data_dir", settings.data_dir
    if settings.uploads.store == "local" and part in _WITH_UPLOADS:
        yield "uploads.path" if settings.uploads.path else "data_dir", settings.uploads_path
    if "jsonl" in settings.possible_sinks and part in _WITH_SINKS and not os.path.lexists(settings.jsonl_path):
        yield "jsonl.path" if settings.jsonl.path else "data_dir", settings.jsonl_path.parent
    if part in _WITH_MODELS and _fetches_models(settings):
        yield "model_files.cache_dir" if settings.model_files.cache_dir else "data_dir", settings.model_cache_path


def _fetches_models(settings: Settings) -> bool:
    """Whether a model's file must be fetched from a bucket, or unpacked."""
    with suppress(ConfigurationError):  # reported when the models are read
        locations = [place for model in described_models(settings).values() for place in model.locations.values()]
        return any(place.bucket is not None or place.text.lower().endswith(".zip") for place in locations)
    return False


def _jsonl_problems(settings: Settings) -> Iterator[str]:
    file = settings.jsonl_path
    key = "jsonl.path" if settings.jsonl.path else "data_dir"
    if os.path.isdir(file):  # noqa: PTH112 Path.is_dir raises if a folder may not be read
        yield f"{key}: {file} is a folder"
    elif os.path.lexists(file) and not os.access(file, os.R_OK | os.W_OK):
        yield f"{key}: no permission to write to {file}"


def _sample_problems(settings: Settings) -> Iterator[str]:
    sample = settings.sample_image
    if sample is not None and not os.path.isfile(sample):  # noqa: PTH113 Path.is_file raises if a folder may not be read
        yield f"sample_image: there is no file {sample}"
    elif sample is not None and not os.access(sample, os.R_OK):
        yield f"sample_image: no permission to read {sample}"


def _gpu_problems(settings: Settings) -> Iterator[str]:
    folder = settings.gpu.lock_dir
    if folder is None:
        return
    with suppress(ConfigurationError):
        if all(gpu_index(model.device) is None for model in described_models(settings).values()):
            return
    if not os.path.isdir(folder):  # noqa: PTH112 Path.is_dir raises if a folder may not be read
        yield f"gpu.lock_dir: there is not a folder {folder}"
    elif host_has_gpu() and not os.access(folder, os.X_OK):
        yield f"gpu.lock_dir: no permission to open files in {folder}"


def _client_problems(settings: Settings, part: Part) -> Iterator[str]:
    """Yield the errors that clients of other servers find in their settings. They connect only at their first use."""
    clients: list[Callable[[], object]] = []
    if part in _WITH_UPLOADS:
        clients.append(lambda: open_object_store(settings))
    if part in _WITH_SINKS:
        clients += [lambda name=name: open_sink(name, settings).close() for name in settings.possible_sinks]  # type: ignore[misc]
    if settings.webhooks.is_on and part in _WITH_WEBHOOKS:
        clients.append(lambda: webhook_guard(settings.webhooks))
    for make in clients:
        try:
            make()
        except ConfigurationError as error:
            yield error.detail


def _security_problems(settings: Settings, part: Part) -> Iterator[str]:
    """Yield the errors in the file with keys, and the reason for which the audit log cannot be written."""
    if part not in _WITH_KEYS:
        return
    keys, audit = settings.security.keys_file, settings.security.audit_file
    if keys is not None:
        try:
            read_key_file(keys)
        except ConfigurationError as error:
            yield error.detail
    if audit is not None:
        is_there = os.path.lexists(audit)
        problem = f"no permission to write to {audit}" if is_there and not os.access(audit, os.W_OK) else None
        if problem := problem or folder_problem(audit.parent):
            yield f"security.audit_file: {problem}"


def _tracing_problems(settings: Settings) -> Iterator[str]:
    """Yield the reason for which no spans can be sent: a package or a variable, since the settings are checked already."""
    try:
        from inference.tracing.tracer import Tracer  # noqa: PLC0415 its packages are an extra
    except ImportError:
        yield (
            "tracing.endpoint: traces need packages that are not installed: pip install 'rohe-inference-service[tracing]', "
            "or pip install -r requirements-tracing.txt in a checkout"
        )
        return
    try:
        Tracer(settings, "check").check()
    except ConfigurationError as error:
        yield error.detail
