"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from inference.errors import ERRORS_BY_CODE, ConfigurationError
from inference.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = ("*.md", "docs/*.md", "bench/results/README.md")


def settings_by_key(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings_by_key(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.default
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


@pytest.mark.parametrize("file", [str(file.relative_to(ROOT)) for pattern in PAGES for file in sorted(ROOT.glob(pattern))])
def test_links_lead_somewhere(repository: Path, file: str) -> None:
    text = (repository / file).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]

    assert [target for target in targets if not (repository / file).parent.joinpath(target).exists()] == []
