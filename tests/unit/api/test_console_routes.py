"""The console: its pages and files, what browsers may keep and run, and the libraries that it brings."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from api_rig import MakeApp, assert_problem
from flask.testing import FlaskClient
from key_rig import write_keys

from api.console.files import ConsoleFile, console_files

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
PAGES = ["/ui/", "/ui/tasks", "/ui/dead-letters", "/ui/queue", "/ui/models", f"/ui/tasks/{'a' * 32}", f"/ui/batches/{'a' * 32}"]
FILES = console_files()
VENDORED = "preact.js", "preact-hooks.js", "htm.js", "uplot.js", "uplot.css"
#: Modules that every page loads, and the others by the module of the page.
SHARED = ("console.css", "app.js", "service.js", "parts.js")
MAX_LIBRARIES_BYTES, MAX_OWN_BYTES = 30 * 1024, 25 * 1024


class TestRoot:
    @pytest.mark.parametrize("accept", [BROWSER, "text/html", "application/json;q=0.5, text/html"])
    def test_a_browser_gets_the_page(self, client: FlaskClient, accept: str) -> None:
        response = client.get("/", headers={"Accept": accept})
        assert (response.status_code, response.headers["Location"], response.headers["Vary"]) == (303, "ui/", "Accept")

    @pytest.mark.parametrize(
        "accept", ["", "*/*", "application/json", "application/json, text/plain, */*", "text/html;q=0.5, */*"]
    )
    def test_a_program_gets_json(self, client: FlaskClient, accept: str) -> None:
        response = client.get("/", headers={"Accept": accept} if accept else {})
        assert response.json["service"] == "image inference"
        assert "GET /ui/" in response.json["paths"]

    def test_below_a_path_prefix(self, make_app: MakeApp) -> None:
        client = make_app(api={"trusted_proxies": ["127.0.0.1"]}).test_client()
        for path, headers in (("/", {"Accept": BROWSER}), ("/ui", {})):
            response = client.get(path, headers=headers | {"X-Forwarded-Prefix": "/ml/v1"})
            assert response.headers["Location"] == "/ml/v1/ui/"

    def test_turned_off(self, make_app: MakeApp) -> None:
        client = make_app(ui={"enabled": False}).test_client()
        response = client.get("/", headers={"Accept": BROWSER})
        assert (response.status_code, "GET /ui/" in response.json["paths"]) == (200, False)
        for path in (*PAGES, "/ui", f"/ui/static/{FILES.digest}/app.js"):
            assert_problem(client.get(path), 404, "not_found")


class TestPages:
    @pytest.mark.parametrize("path", PAGES)
    def test_every_file_is_there(self, client: FlaskClient, path: str) -> None:
        """Relative URLs, so that they are right below any path."""
        page = client.get(path).text
        root = "../" * (path.count("/") - 1)
        urls = re.findall(r'(?:href|src)="([^"]+)"', page) + list(json.loads(import_map(page))["imports"].values())
        files = [url for url in urls if not url.startswith("data:")]
        assert len(files) >= 8
        for url in files:
            assert url.startswith(f"{root}ui/static/")
            assert client.get(f"/{url.removeprefix(root)}").status_code == 200

    @pytest.mark.parametrize("path", PAGES)
    def test_the_only_script_in_a_page_is_the_import_map(self, client: FlaskClient, path: str) -> None:
        response = client.get(path)
        (policy,) = response.headers.getlist("Content-Security-Policy")
        digest = base64.b64encode(hashlib.sha256(import_map(response.text).encode()).digest()).decode()
        assert policy.startswith(f"default-src 'self'; script-src 'self' 'sha256-{digest}'; img-src 'self' blob: data:;")
        for rule in (
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "object-src 'none'",
            "form-action 'self'",
        ):
            assert f"; {rule}" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*(src=|importmap))|\son\w+=|style=", response.text)
        assert response.headers.getlist("Cache-Control") == ["no-store"]

    @pytest.mark.parametrize("path", ["/ui/nothing", "/ui/Tasks", "/ui/queue/x", "/ui/tasks/", "/ui/tasks/a/b/c", "/ui//"])
    def test_there_are_no_other_pages(self, client: FlaskClient, path: str) -> None:
        assert_problem(client.get(path), 404, "not_found")
        page = client.get(path, headers={"Accept": BROWSER})  # its script says so
        assert (page.status_code, page.mimetype, page.headers["Vary"]) == (404, "text/html", "Accept")
        assert f'src="{"../" * (path.count("/") - 1)}ui/static/{FILES.digest}/app.js"' in page.text
        assert "script-src 'self' 'sha256-" in page.headers["Content-Security-Policy"]

    @pytest.mark.parametrize("path", ["/uii", "/tasks/x/y", "/nothing"])
    def test_elsewhere_browsers_get_problems_too(self, client: FlaskClient, path: str) -> None:
        assert_problem(client.get(path, headers={"Accept": BROWSER}), 404, "not_found")

    def test_the_form_without_scripts_has_the_models(self, make_app: MakeApp, repository: Path) -> None:
        models = tuple(repository / "models" / name for name in ("digits", "efficientnet-lite0"))
        page = make_app(models=models, default_model="efficientnet-lite0").test_client().get("/ui/").text
        assert '<form action="../inference" method="post" enctype="multipart/form-data">' in page
        assert "<option>efficientnet-lite0</option><option>digits</option>" in page

    def test_without_a_key_nobody_learns_the_models(self, make_app: MakeApp, tmp_path: Path) -> None:
        app = make_app(security={"keys_file": write_keys(tmp_path).file})
        for path in PAGES:
            assert "digits" not in app.test_client().get(path, headers={"Accept": BROWSER}).text


class TestFiles:
    @pytest.mark.parametrize("name", FILES.by_name)
    def test_is_kept_for_ever_and_compressed(self, client: FlaskClient, name: str) -> None:
        url = f"/ui/static/{FILES.digest}/{name}"
        plain = client.get(url)
        assert plain.headers.getlist("Cache-Control") == ["public, max-age=31536000, immutable"]
        assert "Content-Encoding" not in plain.headers
        answer = client.get(url, headers={"Accept-Encoding": "gzip, br"})
        if name.endswith((".js", ".css")):
            assert answer.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(answer.data) == plain.data
        else:
            assert answer.data == plain.data
        assert client.get(url, headers={"Accept-Encoding": "gzip;q=0"}).data == plain.data

    @pytest.mark.parametrize(
        "name", ["nothing", "page.html", "vendor.lock.json", "preact.LICENSE", "README.md", "..%2fpage.html", "app.js/"]
    )
    def test_there_are_no_others(self, client: FlaskClient, name: str) -> None:
        assert_problem(client.get(f"/ui/static/{FILES.digest}/{name}"), 404, "not_found")

    def test_of_another_digest(self, client: FlaskClient) -> None:
        assert_problem(client.get(f"/ui/static/{'0' * 16}/app.js"), 404, "not_found")


class TestSizes:
    def test_libraries(self) -> None:
        assert sum(map(compressed_bytes, VENDORED)) <= MAX_LIBRARIES_BYTES

    @pytest.mark.parametrize("path", PAGES)
    def test_what_a_page_loads_of_ours(self, client: FlaskClient, path: str) -> None:
        loaded = set(SHARED) | set(re.findall(r"/([\w-]+\.js)", client.get(path).text))
        while more := {name for module in loaded for name in imports(FILES.by_name[module])} - loaded:
            loaded |= more
        assert sum(compressed_bytes(name) for name in loaded - set(VENDORED)) <= MAX_OWN_BYTES


class TestVendoredFiles:
    @pytest.fixture
    def folder(self, repository: Path) -> Path:
        return repository / "api/console"

    @pytest.fixture
    def locked(self, folder: Path) -> list[dict[str, Any]]:
        packages: list[dict[str, Any]] = json.loads((folder / "vendor.lock.json").read_text(encoding="utf-8"))["packages"]
        return packages

    def test_are_as_locked(self, folder: Path, locked: list[dict[str, Any]]) -> None:
        digests = {file["name"]: file["sha256"] for package in locked for file in package["files"]}
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "static/vendor").iterdir()}
        assert found == digests

    def test_each_package_has_its_version_and_license(self, folder: Path, locked: list[dict[str, Any]]) -> None:
        versions = {package["package"]: package["version"] for package in locked}
        assert versions == {"preact": "11.2.0", "htm": "3.1.1", "uplot": "1.6.32"}
        for package in locked:
            (text,) = [file["name"] for file in package["files"] if file["from"] == "LICENSE"]
            head = (folder / "static/vendor" / text).read_text(encoding="utf-8")[:200]
            assert ("Apache License" if package["license"] == "Apache-2.0" else "MIT License") in head

    def test_our_own_modules_name_no_host(self, folder: Path) -> None:
        for path in (folder / "static").glob("*.*"):
            assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path.name


def import_map(page: str) -> str:
    (text,) = re.findall(r'<script type="importmap">(.*?)</script>', page)
    return str(text)


def imports(file: ConsoleFile) -> set[str]:
    """Names of the modules that a module imports at once, and not when a page is opened."""
    return set(re.findall(r'^import .* from "\./([\w-]+\.js)";$', file.content.decode(), re.MULTILINE))


def compressed_bytes(name: str) -> int:
    compressed = FILES.by_name[name].compressed
    assert compressed is not None
    return len(compressed)
