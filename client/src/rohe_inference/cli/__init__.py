"""Command line."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    raise SystemExit("the command line is not here yet")
