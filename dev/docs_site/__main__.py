"""Command that builds the site: `python -m dev.docs_site [--to FOLDER]`."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

from dev.docs_site.navigation import HOME, INDEX, PROJECT, make_navigation, read_sections
from dev.docs_site.source import copy_pages

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_SWAGGER = "flask_openapi_swagger/templates/swagger"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site; return zensical's exit code: not 0 if a link leads nowhere."""
    parser = argparse.ArgumentParser(prog="python -m dev.docs_site", description="Build the documentation as a web site.")
    parser.add_argument("--to", type=Path, default=ROOT / "dist/site", help="folder of the site (default: dist/site)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="docs-site-") as folder:
        try:
            return build(Path(folder), options.to)
        except FileNotFoundError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1


def build(work: Path, to: Path) -> int:
    """Build the site in an empty folder `work`, and put it into the folder `to`, in place of its content."""
    pages = [page for section in read_sections(ROOT).values() for page in section]
    copy_pages(ROOT, [HOME, INDEX, *PROJECT, *pages], work / "source")
    _copy_libraries(work / "source/vendor")
    shutil.copytree(_HERE / "theme", work / "theme")
    (work / "site.yml").write_text(_settings(), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(work / "site.yml")]
    done = subprocess.run(command, check=False)  # noqa: S603 our own command
    if done.returncode == 0:
        # zensical leaves out files whose names begin with a dot
        shutil.copytree(work / "source", work / "site", ignore=shutil.ignore_patterns("*.md"), dirs_exist_ok=True)
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(work / "site", to)
        sys.stdout.write(f"the site is in {to}: python -m http.server --directory {to}\n")
    return done.returncode


def _settings() -> str:
    """Return the text of the settings, with folders and navigation."""
    added = {"docs_dir": "source", "site_dir": "site", "nav": make_navigation(ROOT)}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in added.items()]  # JSON is YAML
    return (_HERE / "site.yml").read_text(encoding="utf-8") + "".join(lines)


def _copy_libraries(folder: Path) -> None:
    """Copy the scripts that pages use: Mermaid, and Swagger UI from the wheel that the service has it from."""
    shutil.copytree(_HERE / "vendor", folder)
    shutil.copyfile(_HERE / "operations.js", folder / "operations.js")
    swagger = Path(str(distribution("flask-openapi-swagger").locate_file(_SWAGGER)))
    for name in ("css/swagger-ui.css", "js/swagger-ui-bundle.js"):
        shutil.copyfile(swagger / name, folder / Path(name).name)


if __name__ == "__main__":
    sys.exit(main())
