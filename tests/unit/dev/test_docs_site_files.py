"""The source of the documentation site: its navigation, the files that it takes, the libraries that it has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dev.docs_site.navigation import make_navigation, read_sections, title
from dev.docs_site.source import copy_pages


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "docs").mkdir(parents=True)
    (root / "lua").mkdir()
    (root / "lua/commit.lua").write_text("return 1\n")
    (root / "README.md").write_text("# `Name` of it\n\nSee [all](docs/README.md).\n")
    (root / "docs/README.md").write_text(
        "# Pages\n\n**Tutorial**: first.\n\n- [one.md](one.md): one\n\n"
        "**How-to**: then.\n\n- [two](two.md): two\n- [change](../CONTRIBUTING.md)\n"
    )
    (root / "docs/one.md").write_text("# One\n\n[scripts](../lua) and [two](two.md#there), [out](https://host.example/x.md)\n")
    (root / "docs/two.md").write_text("# Two\n\n```text\n[no link](missing.md)\n```\n")
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        (root / name).write_text(f"# {name}\n")
    return root


def test_sections_are_those_of_the_index(pages: Path) -> None:
    assert read_sections(pages) == {"Tutorial": ["docs/one.md"], "How-to": ["docs/two.md"]}


def test_navigation_names_pages_by_their_headings(pages: Path) -> None:
    overview, tutorial, how_to, project = make_navigation(pages)
    assert overview == {"Overview": [{"Name of it": "README.md"}, {"Pages": "docs/README.md"}]}
    assert (tutorial, how_to) == ({"Tutorial": [{"One": "docs/one.md"}]}, {"How-to": [{"Two": "docs/two.md"}]})
    assert list(project) == ["Project"]


def test_page_without_a_heading_has_its_name(pages: Path) -> None:
    (pages / "docs/one.md").write_text("no heading")
    assert title(pages / "docs/one.md") == "one"


def test_files_that_pages_link_to_are_copied_with_their_paths(pages: Path, tmp_path: Path) -> None:
    copy_pages(pages, ["docs/one.md"], tmp_path / "source")
    found = {str(path.relative_to(tmp_path / "source")) for path in (tmp_path / "source").rglob("*") if path.is_file()}
    assert found == {"docs/one.md", "docs/two.md", "lua/README.md", "lua/commit.lua"}
    assert "- [commit.lua](commit.lua)" in (tmp_path / "source/lua/README.md").read_text()


def test_folder_with_a_page_of_its_own_keeps_it(pages: Path, tmp_path: Path) -> None:
    (pages / "lua/README.md").write_text("# Scripts\n")
    copy_pages(pages, ["docs/one.md"], tmp_path / "source")
    assert (tmp_path / "source/lua/README.md").read_text() == "# Scripts\n"


def test_folders_in_a_folder_are_named(pages: Path, tmp_path: Path) -> None:
    (pages / "lua/old").mkdir()
    copy_pages(pages, ["docs/one.md"], tmp_path / "source")
    assert (tmp_path / "source/lua/README.md").read_text() == "# lua\n\n- [commit.lua](commit.lua)\n- old/\n"


def test_link_to_a_missing_file_is_an_error(pages: Path, tmp_path: Path) -> None:
    (pages / "docs/one.md").write_text("# One\n\n[gone](gone.txt)\n")
    with pytest.raises(FileNotFoundError, match=r"docs/one\.md has a link to gone\.txt, which does not exist"):
        copy_pages(pages, ["docs/one.md"], tmp_path / "source")


def test_libraries_are_as_locked(repository: Path) -> None:
    folder = repository / "dev/docs_site"
    (package,) = json.loads((folder / "vendor.lock.json").read_text(encoding="utf-8"))["packages"]
    digests = {file["name"]: file["sha256"] for file in package["files"]}
    assert digests == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "vendor").iterdir()}
    assert (package["package"], package["license"]) == ("@mermaid-js/tiny", "MIT")
    assert "MIT License" in (folder / "vendor/mermaid.LICENSE").read_text(encoding="utf-8")
