"""Source of the site: the pages, and every file that they link to, at the paths that they have in the repository.

So links work here as they do on GitHub, and no page is changed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def copy_pages(root: Path, pages: Iterable[str], folder: Path) -> None:
    """Copy pages, and all files that can be reached from them by links, from the repository to a folder.

    Args:
        pages: paths relative to the root.

    Raises:
        FileNotFoundError: a page links to a file that is missing.
    """
    waiting, seen = [root / page for page in pages], set[Path]()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            waiting += _list_folder(file, target)
        else:
            shutil.copyfile(file, target)
        if file.suffix == ".md":
            waiting += linked_files(file)


def linked_files(page: Path) -> Iterator[Path]:
    """Yield the files and folders that a page links to. Raises FileNotFoundError, with the name of the page."""
    for target in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target and not target.startswith("mailto:"):
            file = Path(os.path.normpath(page.parent / target))
            if not file.exists():
                raise FileNotFoundError(f"{page} has a link to {target}, which does not exist")
            yield file


def _list_folder(folder: Path, target: Path) -> list[Path]:
    """Write a page with the content of a folder that a page links to, as GitHub shows it; return the files that it links to.

    A folder that has a README.md has its page already.
    """
    target.mkdir(exist_ok=True)
    if (folder / "README.md").exists():
        return [folder / "README.md"]
    found = sorted(path for path in folder.iterdir() if path.name != "__pycache__")
    items = (f"- [{path.name}]({path.name})\n" if path.is_file() else f"- {path.name}/\n" for path in found)
    (target / "README.md").write_text(f"# {folder.name}\n\n{''.join(items)}", encoding="utf-8")
    return [path for path in found if path.is_file()]
