"""Command line `rohe-inference`, on top of the client. The console script calls `main`."""

from __future__ import annotations

from rohe_inference.cli.app import main

__all__ = ["main"]
