"""Redis keys that docs/redis-keys.md documents, and keys that the source uses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

ROOT = Path(__file__).parents[2]
LUA = ROOT / "inference/task_store/lua"
_PRELUDE = LUA / "_prelude.lua"
_ROW = re.compile(r"^\| `([^`]+)` \| (string|list|hash|set|sorted set|stream) \|", re.MULTILINE)
#: a word in capitals stands for a value
_PLACEHOLDER = re.compile(r"(?<![a-z])[A-Z][A-Z_]+")
#: of Redis' TYPE
_TYPES = {b"zset": "sorted set"}

#: A key's name in Lua: `k('waiting', queue)`; of a name that is a variable it can be a task or a batch.
_LUA_KEY = re.compile(r"\b(?:k|key)\(('[\w-]+'|[a-z][\w\[\]]*\))(?:, owner)?(?:, '([\w-]+)')?")
_LUA_SUBJECTS = {"task", "batch"}
#: A key's name in Python: `f"{key_prefix}:workers"`, `self._key("seq", "tag")`, `KEYS[1] .. ':desired'`.
_PYTHON_KEY = re.compile(
    r"prefix\}:([\w-]+)(?::\{owner\})?(?::([\w-]+))?|_key\(\"([\w-]+)\"(?:, \"([\w-]+)\")?|KEYS\[1\] \.\. ':([\w-]+)'"
)
_HEADER_KEY = re.compile(r"^--   ([\w:\\-]+) +(?:string|list|hash|set|sorted set|stream) +\S", re.MULTILINE)


@dataclass(frozen=True)
class KeyFamily:
    """A row of docs/redis-keys.md."""

    key: str
    type: str

    @property
    def name(self) -> str:
        """Constant part of the key: `worker` of `PREFIX:worker:WORKER`, `seq:tag` of `PREFIX:seq:tag`."""
        return family_name(self.key.removeprefix("PREFIX:"))

    def matches(self, key: str, prefix: str) -> bool:
        text = self.key.replace(r"\x06\x16", "\x06\x16").replace("PREFIX", prefix)
        literal = [re.escape(part) for part in _PLACEHOLDER.split(text)]
        return re.fullmatch(".+".join(literal), key) is not None


def family_name(key: str) -> str:
    return ":".join(part for part in key.split(":") if not _PLACEHOLDER.fullmatch(part))


def documented(page: Path = ROOT / "docs/redis-keys.md") -> list[KeyFamily]:
    return [KeyFamily(*row) for row in _ROW.findall(page.read_text(encoding="utf-8"))]


def undocumented(client: redis.Redis, prefix: str, match: str = "*") -> list[str]:
    """Keys on the server that fit no row of the page, or another type than its row says."""
    families, found = documented(), []
    for raw in client.scan_iter(match, count=10_000):
        key, kind = raw.decode(errors="replace"), _type(client, raw)
        if kind and not any(family.matches(key, prefix) and family.type == kind for family in families):
            found.append(f"{kind} {key!r}")
    return found


def _type(client: redis.Redis, key: bytes) -> str:
    """Empty for a key that expired meanwhile."""
    kind: Any = client.type(key)
    return "" if kind == b"none" else _TYPES.get(kind, kind.decode())


def in_python(files: Iterable[Path]) -> set[str]:
    """Names of the families that Python files use."""
    found = _PYTHON_KEY.findall("\n".join(file.read_text(encoding="utf-8") for file in files))
    return {":".join(part for part in parts if part) for parts in found}


def in_script(script: Path) -> set[str]:
    """Names of the families that a script of the task store uses, by itself or by a function of the prelude."""
    definitions = _prelude_definitions()
    text, seen = _code(script.read_text(encoding="utf-8")), set[str]()
    found = _lua_keys(text)
    waiting = _words(text) & definitions.keys()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        found |= _lua_keys(definitions[name])
        waiting |= _words(definitions[name]) & definitions.keys() - seen
    return found


def in_header(script: Path) -> set[str]:
    """Names of the families in the comment that a script begins with."""
    header = re.split(r"^(?!--)", script.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
    return {family_name(key) for key in _HEADER_KEY.findall(header)}


def _prelude_definitions() -> dict[str, str]:
    """Return the code of each function and variable of the prelude, by name."""
    definitions = {}
    for chunk in re.split(r"^(?=local )", _code(_PRELUDE.read_text(encoding="utf-8")), flags=re.MULTILINE):
        head = re.match(r"local (?:function )?([\w, ]+)", chunk)
        names = re.split(r", *", head[1].strip()) if head else []
        definitions |= dict.fromkeys(names, chunk)
    return definitions


def _code(lua: str) -> str:
    return re.sub(r"--.*", "", lua)


def _words(lua: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", lua))


def _lua_keys(lua: str) -> set[str]:
    found = set[str]()
    for first, second in _LUA_KEY.findall(lua):
        found |= {":".join(filter(None, (first.strip("'"), second)))} if first.startswith("'") else _LUA_SUBJECTS
    return found
