"""Section of the console."""

from __future__ import annotations

from inference.settings.value_checks import Section


class UiSettings(Section):
    """The console: a page for browsers, served by the API."""

    #: serve it at `/ui/`, and redirect browsers there from `/`
    enabled: bool = True
