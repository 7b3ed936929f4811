"""Lua scripts of the task store (`lua/`), each with its parts of the prelude. Their first key is the prefix of all keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from inference.runtime.redis import unavailable_when_down

#: Consumer group of the relays on each outbox stream.
RELAY_GROUP = "relay"

_LUA = Path(__file__).parent / "lua"
_COMMENT, _WORD = re.compile(r"--.*"), re.compile(r"[A-Za-z_]\w*")
#: Begin of a definition of the prelude, with its names.
_DEFINITION = re.compile(r"^local (?:function )?([\w, ]+)", re.MULTILINE)


class Scripts:
    """Runs the scripts. Each call raises ServiceUnavailable if the server does not answer."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._prefix = key_prefix

    def run(self, script: str, *arguments: Any) -> Any:
        with unavailable_when_down():
            return self.by_name[script](keys=[self._prefix], args=arguments)

    def run_pipelined(self, *calls: tuple[str, Sequence[Any]]) -> list[Any]:
        """Run scripts with their arguments in order, in one round trip."""
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            for script, arguments in calls:  # a `Script` would ask the server each time whether it has the script
                pipe.evalsha(self.by_name[script].sha, 1, self._prefix, *arguments)
            answers: list[Any] = pipe.execute(raise_on_error=False)
            for at, (script, arguments) in enumerate(calls):
                if isinstance(answers[at], NoScriptError):
                    answers[at] = self.run(script, *arguments)
                elif isinstance(answers[at], Exception):
                    raise answers[at]
        return answers

    @cached_property
    def by_name(self) -> dict[str, Script]:
        prelude = (_LUA / "_prelude.lua").read_text(encoding="utf-8")
        return {
            path.stem: self._redis.register_script(with_definitions(path.read_text(encoding="utf-8"), prelude))
            for path in _LUA.glob("[!_]*.lua")
        }


def with_definitions(script: str, prelude: str) -> str:
    """Return a script behind those definitions of the prelude that it uses: the server carries them out at each call."""
    used, kept = _words(script), [script]
    begins = list(_DEFINITION.finditer(prelude))
    ends = [*(begin.start() for begin in begins[1:]), len(prelude)]
    for begin, end in reversed(list(zip(begins, ends, strict=True))):
        if used & _words(begin[1]):
            definition = prelude[begin.start() : end]
            used |= _words(definition)
            kept.append(definition)
    return "".join(reversed(kept))


def _words(lua: str) -> set[str]:
    return set(_WORD.findall(_COMMENT.sub("", lua)))
