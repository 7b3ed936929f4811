"""The running application, typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from api.app import Api


def api() -> Api:
    """The application that handles the current request."""
    return cast("Api", current_app)
