"""The form of `FLOWER_BASIC_AUTH`, so that it keeps others out and lets its user in."""

from __future__ import annotations

import pytest

from tasks.flower.access import login_problem


@pytest.mark.parametrize("logins", [["me:pw"], ["me:p:w"], ["me:pw", "you:pw"]])
def test_a_name_and_a_password_are_enough(logins: list[str]) -> None:
    assert login_problem(logins) is None


@pytest.mark.parametrize("logins", [[], [""], ["me"], ["me:"], [":pw"], ["me:pw", ""], ["me:pässword"]])
def test_anything_less_is_told(logins: list[str]) -> None:
    assert login_problem(logins) is not None
