"""URLs in answers: paths with the prefix under which clients reach the service."""

from __future__ import annotations

from urllib.parse import quote

from flask import request

#: Characters that RFC 3986 allows in a path in addition to the unreserved ones.
_PATH_CHARACTERS = "/!$&'()*+,;=:@"


def prefixed(path: str, root: str | None = None) -> str:
    """`path` as a client reaches it.

    Args:
        root: the client's prefix, not quoted; None: that of the current request.
    """
    root = request.root_path if root is None else root
    return f"{quote(root, safe=_PATH_CHARACTERS)}{path}" if root else path


def absolute(path: str) -> str:
    """`path` as a whole URL, by the host of the current request."""
    return f"{request.scheme}://{request.host}{prefixed(path)}"


def task_url(task_id: str, root: str | None = None) -> str:
    """The path of a task; `root` as in `prefixed`."""
    return prefixed(f"/tasks/{quote(task_id, safe='')}", root)


def batch_url(batch_id: str) -> str:
    """The path of a batch."""
    return prefixed(f"/batches/{quote(batch_id, safe='')}")


def erasure_url(erasure_id: str) -> str:
    """The path of an erasure."""
    return prefixed(f"/erasures/{erasure_id}")


def model_url(name: str) -> str:
    """The path of a model."""
    return prefixed(f"/models/{quote(name, safe='')}")
