"""HTTP API of the service: `create_app(settings)`."""

from api.app import create_app

__all__ = ["create_app"]
