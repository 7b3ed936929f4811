"""Each script of the task store gets those definitions of the prelude that it uses."""

from __future__ import annotations

from inference.task_store.scripts import with_definitions

PRELUDE = """-- Notes about `unused`.

local prefix = KEYS[1]

-- Makes a key.
local function key(name)
  return prefix .. name
end

local unused = {}

local ONE, TWO = 1, 2

local function count()
  return TWO -- not unused
end
"""


def definitions(script: str) -> list[str]:
    whole = with_definitions(script, PRELUDE)
    assert whole.endswith(script)
    return [line for line in whole.removesuffix(script).splitlines() if line.startswith("local ")]


def test_what_a_definition_uses_comes_before_it() -> None:
    assert definitions("return key('a')") == ["local prefix = KEYS[1]", "local function key(name)"]


def test_one_of_several_names_is_enough() -> None:
    assert definitions("return count()") == ["local ONE, TWO = 1, 2", "local function count()"]


def test_names_in_comments_and_parts_of_names_do_not_count() -> None:
    assert definitions("local keys = 1 -- key, count") == []
