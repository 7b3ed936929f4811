"""Names of the fields that requests may have, and the errors for other names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from inference.errors import InvalidMetadata, InvalidRequest, shown, shown_name

#: Members of `metadata` that may also be separate form fields or query parameters.
OPTION_NAMES = (
    *("request_id", "model", "deadline_s", "mode", "priority", "sinks", "shape", "dtype", "top_k", "prediction"),
    "webhook",
)
PREDICT_FIELDS = frozenset({"command", "metadata", *OPTION_NAMES})
_WEIGHTS_FIELDS = frozenset({"command", "local_file", "model_id", "model", "weights_url", "architecture_url"})
#: ROHE's clients send `local_file` with every command.
COMMAND_FIELDS: Mapping[str, frozenset[str]] = {
    "change_ensemble_mode": frozenset({"command", "local_file", "ensemble_mode"}),
    "load_new_model": frozenset({"command", "local_file", "model_id"}),
    "load_new_weights": _WEIGHTS_FIELDS,
    "modify_weights": _WEIGHTS_FIELDS,
}
TEXT_FIELDS = PREDICT_FIELDS.union(*COMMAND_FIELDS.values())

IMAGE = "image"
AS_A_FILE = "multipart/form-data with the image as a file: curl -F image=@photo.jpg …"

#: Names that people use for an option, letters only: more likely a mistake than a member of the client's own.
_OTHER_NAMES = {
    "modelid": "model",
    "modelname": "model",
    "deadlinems": "deadline_s",
    "deadlinesec": "deadline_s",
    "deadlineseconds": "deadline_s",
}
_NO_LETTER = re.compile(r"[\W_]+")
#: Minimum letters of a name that is still recognised if one letter is wrong, added or missing.
_LONG_NAME = 8
#: Letters at the end of a name that must match: request_ip and request_no are not misspellings of request_id.
_WORD_END = 2
_MAX_NAME_LENGTH = 40
#: Maximum members of one JSON object that are compared with the known names.
_MAX_MEMBERS = 100


def check_known(names: Iterable[str], known: Collection[str], kind: str = "a part of the form") -> None:
    """Refuse a form field or query parameter that the route does not have. Raises InvalidRequest."""
    for name in names:
        if name not in known:
            raise unknown_field(name, known, kind)


def unknown_field(name: str, known: Collection[str], kind: str = "a part of the form") -> InvalidRequest:
    """The error for a field that the route does not have, with the known name that is most similar."""
    choices = sorted(known)
    near = nearest(name, [*choices, IMAGE] if "metadata" in known else choices)
    hint = f": did you mean {near}?" if near else ""
    wrong = f"there is no field {shown(name)} here" if name else f"{kind} has no name"
    expected = f"one of {', '.join(choices)}" if choices else "no field at all"
    return InvalidRequest(f"{wrong}{hint}", field=shown_name(name) if name else None, expected=expected)


def check_members(members: Mapping[str, Any], known: frozenset[str], field: str) -> None:
    """Refuse a member of a JSON object that is a misspelled known name. Members with other names are the client's own.

    Args:
        field: the path of the object, for the error.

    Raises:
        InvalidMetadata: a name is misspelled; `field` of the error is the member.
    """
    for name in islice(members, _MAX_MEMBERS):
        if name in known or len(name) > _MAX_NAME_LENGTH:
            continue
        meant = _misspelled(name, known)
        if meant is not None:
            raise InvalidMetadata(
                f"{field} has no member {shown(name)}: did you mean {meant}?", field=f"{field}.{shown_name(name)}", expected=meant
            )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to `name`, for a hint."""
    short = name[:_MAX_NAME_LENGTH]
    choices = {_letters(choice): choice for choice in known}
    near = difflib.get_close_matches(_letters(short), choices, n=1, cutoff=0.7)
    return _misspelled(short, frozenset(choices.values())) or (choices[near[0]] if near else None)


@lru_cache(maxsize=1000)  # the members of one client's requests are mostly the same
def _misspelled(name: str, known: frozenset[str]) -> str | None:
    """The known name of which `name` is a misspelling: in case, punctuation, singular or plural, or by one letter."""
    letters = _letters(name)
    meant = (choice for choice, choice_letters in _with_letters(known) if _is_misspelling(letters, choice_letters))
    other = _OTHER_NAMES.get(letters)
    return next(meant, other if other in known else None)


@lru_cache
def _with_letters(known: frozenset[str]) -> tuple[tuple[str, str], ...]:
    return tuple((choice, _letters(choice)) for choice in sorted(known))


def _is_misspelling(letters: str, meant: str) -> bool:
    """Whether `letters` is a misspelling of `meant`; strict for short names: "code" is not a misspelling of "mode"."""
    if abs(len(letters) - len(meant)) > 1:
        return False
    if letters.removesuffix("s") == meant.removesuffix("s"):
        return True
    if len(letters) == len(meant):
        wrong = [place for place, (one, other) in enumerate(zip(letters, meant, strict=True)) if one != other]
        first, last = wrong[0], wrong[-1]
        is_swap = last == first + 1 and letters[first : last + 1] == meant[last] + meant[first]
        is_word_end = first >= len(meant) - _WORD_END
        return is_swap or (first == last and len(meant) >= _LONG_NAME and not is_word_end)
    shorter, longer = sorted((letters, meant), key=len)
    extra = next((place for place, (one, other) in enumerate(zip(shorter, longer, strict=False)) if one != other), len(shorter))
    if shorter[extra:] != longer[extra + 1 :]:
        return False
    is_doubled = len(letters) > len(meant) and extra > 0 and longer[extra] == longer[extra - 1]
    is_inside = 0 < extra < len(longer) - 1
    return is_doubled or (is_inside and (len(letters) < len(meant) or len(meant) >= _LONG_NAME))


def _letters(name: str) -> str:
    return _NO_LETTER.sub("", name).lower()
