"""The documentation says what the code does."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

import server
from inference.errors import ERRORS_BY_CODE, ConfigurationError
from inference.settings import Settings, load_settings
from inference.settings.renamed_keys import RENAMED
from inference.settings.variables import secret_variables

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(file.relative_to(ROOT))
    for pattern in ("*.md", "client/*.md", "docs/**/*.md", "bench/results/README.md", "models/*/*.md", "samples/*.md")
    for file in ROOT.glob(pattern)
)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: folders of the repository whose files pages name
_PATH = re.compile(r"`((?:api|bench|client|configurations|deploy|docs|inference|samples|tasks|tests)/[\w./-]*)`")
#: what stands for a name of the reader's own
_FILES_OF_A_READER = re.compile(r"[A-Z]{2,}")

#: Parts of configurations that need another setting, which pages leave out.
_NEEDED = (
    ("SASL", "INFERENCE_KAFKA__PASSWORD", "secret"),
    ("amqp", "INFERENCE_TASK_STORE__URL", "redis://127.0.0.1/0"),
)
_KEY_ID = "abcdefghij"

#: dotted names that begin like a setting's and are none
NO_SETTINGS = {"api.example"}


def blocks(page: str, language: str) -> list[str]:
    """Give the code blocks of a page in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for found, code in _FENCED.findall(text) if found == language]


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = [title.replace("`", "").lower() for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


def settings_by_key(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings_by_key(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.get_default(call_default_factory=True)
    return found


def test_every_setting_is_documented_with_its_default(repository: Path) -> None:
    text = (repository / "docs/configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", text, re.MULTILINE))

    def shown(default: Any) -> str:
        match default:
            case None:
                return "none"
            case SecretStr():
                return shown(default.get_secret_value() or None)
            case bool():
                return f"`{str(default).lower()}`"
            case tuple():
                return f"`[{', '.join(map(str, default))}]`"
            case float():
                return f"`{default:g}`"
        return f"`{default}`"

    assert rows == {key: shown(default) for key, default in settings_by_key().items()}


def test_every_error_a_client_can_get_is_documented(repository: Path) -> None:
    text = (repository / "docs/http.md").read_text(encoding="utf-8")
    documented = {
        (int(status), code)
        for status, codes in re.findall(r"^\| (\d{3}) \| (.*?) \|", text, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }

    kinds = [kind for kind in ERRORS_BY_CODE.values() if kind is not ConfigurationError]
    assert documented == {(kind.status, kind.code) for kind in kinds}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    broken = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", text):
        file = (ROOT / page).parent / target if target else ROOT / page
        if "://" not in target and not (file.exists() and (not anchor or anchor in anchors(file))):
            broken.append(f"{target}#{anchor}")

    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")

    named = [path for path in _PATH.findall(text) if not _FILES_OF_A_READER.search(path)]
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_are_named_exist(page: str) -> None:
    keys = settings_by_key().keys()
    sections = {key.partition(".")[0] for key in keys if "." in key}
    text = (ROOT / page).read_text(encoding="utf-8")
    dotted = [key for key in re.findall(r"`([a-z_]+\.[a-z_]+)`", text) if key.partition(".")[0] in sections]
    secrets = {f"{name}_FILE": name for name in secret_variables()}
    named = re.findall(r"\bINFERENCE_[A-Z_]+__[A-Z_]+\b", text)
    variables = [secrets.get(name, name).removeprefix("INFERENCE_").lower().replace("__", ".") for name in named]

    allowed = NO_SETTINGS | RENAMED.keys() if page == "CHANGELOG.md" else NO_SETTINGS
    assert {key for key in [*dotted, *variables] if key not in keys} <= allowed


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    files = [ROOT / "server.py", *(ROOT / "inference/launcher").glob("*_command*.py")]
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    commands = set(re.findall(r"add_parser\(\s*\"([a-z-]+)\"", code))

    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"\bserver\.py ([a-z][a-z-]+)", text)) <= commands


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_can_be_read(page: str) -> None:
    for script in blocks(page, "sh"):
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{script}"
    for code in blocks(page, "python"):
        compile(code, page, "exec")
    for document in blocks(page, "yaml"):
        yaml.safe_load(document)
    for document in blocks(page, "json"):
        json.loads(document)


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_options_that_are_shown(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Parse each command of server.py in code blocks, as a shell and the command itself do."""
    for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        if "python server.py" in line:
            words = shlex.split(line.partition("python server.py")[2], comments=True)
            words = list(itertools.takewhile(lambda word: word not in {">", "2>", "2>&1", "|", "&"}, words))
            if words[:1] == ["keys"]:
                words = [_KEY_ID if word == "ID" else word for word in words]
            assert is_accepted(words), f"{line}\n{capsys.readouterr().err}"


def is_accepted(arguments: list[str]) -> bool:
    with suppress(SystemExit):
        server._parser().parse_args(server.join_scale(arguments))
        return True
    return False


def configurations(page: str) -> list[str]:
    """Return the blocks of YAML that are configurations of the service, or parts of one."""
    documents = [(text, yaml.safe_load(text)) for text in blocks(page, "yaml")]
    return [
        text for text, document in documents if isinstance(document, dict) and document.keys() <= Settings.model_fields.keys()
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if configurations(page)])
def test_configurations_are_valid(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca.crt", "client.crt", "client.key", "client.pem"):  # files of the reader's own
        (tmp_path / name).touch()
    for text in configurations(page):
        file = tmp_path / "config.yaml"
        file.write_text(text.replace(":PORT", ":9000").replace(": NAME", ": name"), encoding="utf-8")
        with monkeypatch.context() as environment:
            for name in re.findall(r"\$\{(\w+)\}", text):
                environment.setenv(name, "whsec_" + "A" * 32)
            for part, variable, value in _NEEDED:
                if part in text:
                    environment.setenv(variable, value)
            load_settings(file)


def test_index_names_every_page() -> None:
    text = (ROOT / "docs/README.md").read_text(encoding="utf-8")

    pages = {file.name for file in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\(([\w-]+\.md)\)", text))


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE)) == set(phony.split())


def test_glossary_is_sorted_and_links_each_term() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (.*) \|$", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)[2:]
    terms = [term for term, _ in rows]

    assert terms == sorted(set(terms), key=str.lower)
    assert [term for term, meaning in rows if "](" not in meaning] == []
