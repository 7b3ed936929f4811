"""The calls of S3 that docs/object-stores.md lists are those that the store makes, to judge another store by."""

from __future__ import annotations

import re
from pathlib import Path

from minio import Minio


def test_the_calls_of_the_client_are_documented(repository: Path) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (repository / "inference/storage").glob("s3*.py"))
    used = {name for name in re.findall(r"(?:_client|_signer|client)\.(\w+)", code) if callable(getattr(Minio, name, None))}
    used -= {"enable_virtual_style_endpoint", "disable_virtual_style_endpoint"}  # no requests
    page = (repository / "docs/object-stores.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[A-Z]\w+`.*?) \| (`.*?) \|", page, re.MULTILINE)
    assert {name for _, names in rows for name in re.findall(r"`(\w+)`", names)} == used
    needed = re.findall(r"^\| `([A-Z]\w+)` \|", page.partition("A store may refuse these")[0], re.MULTILINE)
    assert len(needed) == 9
