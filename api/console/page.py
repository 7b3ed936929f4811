"""The HTML of the console.

Every path of the console has the same page; its script decides what to show. The page names its files by relative URLs, so it
works behind a proxy with any path.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

from api.console.files import console_files

_TEMPLATE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
#: Names by which modules import the libraries.
_LIBRARIES = {"preact": "preact.js", "preact/hooks": "preact-hooks.js", "htm": "htm.js"}
#: Modules of every page, loaded before the first of them asks for the next.
_SHARED = ("service.js", "parts.js", *_LIBRARIES.values())


@lru_cache(maxsize=16)
def console_page(root: str, module: str | None, models: tuple[str, ...], settings_json: str) -> str:
    """Build the page.

    Args:
        root: relative URL of the API's root, such as `../`.
        module: file of the module that shows the requested path; None if the console has no such page.
        models: names of the models for the form without scripts; the first is the default. Without them it has none.
        settings_json: what the scripts need to know of the configuration, as a JSON object.
    """
    static = _static(root)
    return _TEMPLATE.substitute(
        static=static,
        root=root,
        import_map=_import_map(static),
        preloads="\n".join(f'<link rel="modulepreload" href="{static}{name}">' for name in (*_SHARED, module) if name),
        settings=html.escape(settings_json),
        models="".join(f"<option>{html.escape(name)}</option>" for name in models),
    )


@lru_cache(maxsize=4)
def content_policy(root: str) -> str:
    """The Content-Security-Policy of that page: all is of this service, and the only script in the page is the import map."""
    digest = base64.b64encode(hashlib.sha256(_import_map(_static(root)).encode()).digest()).decode()
    return (
        f"default-src 'self'; script-src 'self' 'sha256-{digest}'; img-src 'self' blob: data:; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def _static(root: str) -> str:
    return f"{root}ui/static/{console_files().digest}/"


def _import_map(static: str) -> str:
    imports: dict[str, Any] = {name: static + file for name, file in _LIBRARIES.items()}
    return json.dumps({"imports": imports})
