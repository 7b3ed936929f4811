"""File with keys (`security.keys_file`): reading, and noticing of a new version."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from inference.errors import ConfigurationError, shown
from inference.keys.entries import Key, KeyDocument, OwnerSettings, OwnerWebhook
from inference.keys.key_text import KEY_ID_PATTERN
from inference.settings.documents import read_mapping, read_text
from inference.settings.masked_text import explain

logger = logging.getLogger(__name__)

_WHAT = "the keys (security.keys_file) in"
_KEY_ID = re.compile(KEY_ID_PATTERN)
#: Characters of a wrong id that an error shows: somebody may have pasted a whole key.
_SHOWN_ID_LENGTH = 13

#: Identity of a file's version: device, inode, time of the change, size; None: there is no file.
_Version = tuple[int, int, int, int] | None


@dataclass(frozen=True)
class KeyFileContent:
    """Keys and owners of a file."""

    #: by id
    keys: Mapping[str, Key] = field(default_factory=dict)
    #: by name; owners without settings are not in it
    owners: Mapping[str, OwnerSettings] = field(default_factory=dict)
    #: other files that it names
    secret_files: tuple[Path, ...] = ()


def read_key_file(path: Path) -> KeyFileContent:
    """Read a file with keys, and the files with secrets that it names.

    Raises:
        ConfigurationError: one line for each error; it names the key's id and shows no secret.
    """
    document = read_mapping(path, _WHAT)
    _check_ids(path, document.get("keys"))
    try:
        read = KeyDocument.model_validate(document)
    except ValidationError as error:
        problems = (explain(problem, section=KeyDocument) for problem in error.errors())
        raise ConfigurationError("\n".join(f"{path}: {problem}" for problem in problems), field="security.keys_file") from None
    files = {name: path.parent / owner.webhook.secret_file for name, owner in read.owners.items() if owner.webhook.secret_file}
    return KeyFileContent(
        keys={key_id: entry.key(key_id) for key_id, entry in read.keys.items()},
        owners=read.owners | {name: _with_secret(path, name, read.owners[name], file) for name, file in files.items()},
        secret_files=tuple(files.values()),
    )


class WatchedKeyFile:
    """Content of a file with keys, as its last valid version has it.

    Args:
        path: None: there is no such file, and no key in it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._versions: tuple[_Version, ...] = ()
        self.content = KeyFileContent()
        #: whether the file has errors, so that `content` is that of an earlier version
        self.is_broken = False

    def refresh(self) -> None:
        """Read the file if it has changed; a version with errors is reported in the log, and the last valid one stays."""
        if self.path is None:
            return
        versions = tuple(_versions_of((self.path, *self.content.secret_files)))
        if versions == self._versions:
            return
        self._versions = versions
        try:
            self.content = read_key_file(self.path)
        except ConfigurationError as error:
            self.is_broken = True
            logger.error("the keys are those of the last valid version of the file: %s", error.detail)  # noqa: TRY400 the sentence says all
        else:
            self.is_broken = False
            logger.info("%s: %d keys", self.path, len(self.content.keys))


def _versions_of(paths: Iterable[Path]) -> Iterable[_Version]:
    """Yield the version of each file. Links are followed: Kubernetes replaces a secret by changing a link to its folder."""
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116 Path.stat is no shorter
        except OSError:
            yield None
        else:
            yield found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _check_ids(path: Path, keys: Any) -> None:
    for key_id in keys if isinstance(keys, dict) else ():
        if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
            raise ConfigurationError(
                f"{path}: keys: {shown(str(key_id)[:_SHOWN_ID_LENGTH])} is not the id of a key, which is the ten characters"
                " between rk_ and the next _ ; put it into quotes if it is",
                field="security.keys_file",
            )


def _with_secret(path: Path, name: str, owner: OwnerSettings, file: Path) -> OwnerSettings:
    """Return the settings of an owner with the secret in the file that they name."""
    secret = read_text(file, f"owners.{name}.webhook.secret_file,").strip()
    try:
        webhook = OwnerWebhook(secret=SecretStr(secret), url=owner.webhook.url, events=owner.webhook.events)
    except ValidationError as error:
        key = f"owners.{name}.webhook"
        problems = (explain(problem, section=OwnerWebhook, prefix=key) for problem in error.errors())
        raise ConfigurationError("\n".join(f"{path}: {problem}" for problem in problems), field="security.keys_file") from None
    return OwnerSettings(webhook=webhook)
