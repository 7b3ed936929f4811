"""Documents of the file sink, read while the relay writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson


def file_documents(data_dir: Path) -> list[dict[str, Any]]:
    """Return the documents that are in the file as whole lines; none before the first delivery creates it."""
    file = data_dir / "results.jsonl"
    whole_lines, _, _ = (file.read_bytes() if file.exists() else b"").rpartition(b"\n")
    return [orjson.loads(line) for line in whole_lines.splitlines()]
