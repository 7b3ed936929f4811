"""Navigation of the site: the sections of docs/README.md, with the pages in their order there."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

#: The index: a section is a line with `**Name**:`, and each page of it an item of the list below.
INDEX = "docs/README.md"
HOME = "README.md"
#: Pages about the project itself, in a section of their own.
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_SECTION = re.compile(r"^\*\*([^*]+)\*\*:", re.MULTILINE)
_PAGE = re.compile(r"^- \[[^]]*\]\(([^)#]+\.md)\)", re.MULTILINE)


def read_sections(root: Path) -> dict[str, list[str]]:
    """Return the paths of the pages, relative to the root, by section.

    Args:
        root: folder of the repository.
    """
    _, *parts = _SECTION.split((root / INDEX).read_text(encoding="utf-8"))
    sections = {
        name: [_path(target) for target in _PAGE.findall(text)] for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {name: [page for page in pages if page not in PROJECT] for name, pages in sections.items()}


def make_navigation(root: Path) -> list[Any]:
    """Return the setting `nav`: each section with its pages, which have the titles of their first headings."""
    sections = {"Overview": [HOME, INDEX], **read_sections(root), "Project": list(PROJECT)}
    return [{name: [{title(root / page): page} for page in pages]} for name, pages in sections.items()]


def title(page: Path) -> str:
    """Return the text of a page's first heading."""
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem


def _path(target: str) -> str:
    return posixpath.normpath(f"docs/{target}")
