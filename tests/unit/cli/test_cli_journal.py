"""Journal of a run: an interrupted run is resumed, and each image keeps its Idempotency-Key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rohe_inference.cli.journal import Journal, JournalError, default_journal
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.photos import Photo, find_photos

OPTIONS = {"command": "predict", "model": "digits"}
DONE = Outcome("succeeded", "task-1", {"name": "digits"}, {"class": 3})
BAD = Outcome("refused", error={"code": "invalid_image", "detail": "it is no image"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "run.jsonl"


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    return find_photos([str(tmp_path)], is_recursive=False)


def test_outcomes_and_keys_outlive_the_process(path: Path, photos: list[Photo]) -> None:
    before = Journal(path, OPTIONS)
    keys = [before.idempotency_key(photo) for photo in photos]
    before.record(photos[0], DONE)
    before.close()

    after = Journal(path, OPTIONS)

    assert [after.outcome(photo) for photo in photos] == [DONE, None]
    assert [after.idempotency_key(photo) for photo in photos] == keys
    assert len(set(keys)) == len(photos)
    after.close()


def test_header_is_written_before_anything_else(path: Path) -> None:
    journal = Journal(path, OPTIONS)

    assert journal.run_id in path.read_text(encoding="utf-8")
    journal.close()


def test_line_that_was_not_written_to_its_end_is_cut_off(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    journal.record(photos[0], DONE)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"photo":"half of a li')

    journal = Journal(path, OPTIONS)
    journal.record(photos[1], BAD)
    journal.close()

    resumed = Journal(path, OPTIONS)
    assert [resumed.outcome(photo) for photo in photos] == [DONE, BAD]
    resumed.close()


def test_half_a_header_begins_a_new_run(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"journal":1,"run_id":"12')

    journal = Journal(path, OPTIONS)

    assert len(journal.run_id) == 32
    journal.close()


def test_changed_file_is_another_photo(path: Path, photos: list[Photo], tmp_path: Path) -> None:
    journal = Journal(path, OPTIONS)
    journal.record(photos[0], DONE)
    (tmp_path / "a.png").write_bytes(b"other content")

    (changed, _) = find_photos([str(tmp_path)], is_recursive=False)

    assert journal.outcome(changed) is None
    assert journal.idempotency_key(changed) != journal.idempotency_key(photos[0])
    journal.close()


def test_restart_forgets_the_run(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    key = journal.idempotency_key(photos[0])
    journal.record(photos[0], DONE)
    journal.close()

    journal = Journal(path, OPTIONS, restart=True)

    assert journal.outcome(photos[0]) is None
    assert journal.idempotency_key(photos[0]) != key
    journal.close()


def test_failed_images_are_tried_again_under_another_key_on_request_alone(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    key = journal.idempotency_key(photos[0])
    journal.record(photos[0], BAD)
    journal.record(photos[1], DONE)
    journal.close()

    resumed = Journal(path, OPTIONS)
    assert resumed.outcome(photos[0]) == BAD
    resumed.close()

    again = Journal(path, OPTIONS, retry_failed=True)
    assert [again.outcome(photo) for photo in photos] == [None, DONE]
    second_key = again.idempotency_key(photos[0])
    assert second_key != key
    again.close()  # interrupted before the answer came

    third = Journal(path, OPTIONS, retry_failed=True)
    assert third.idempotency_key(photos[0]) == second_key
    third.record(photos[0], DONE)
    third.close()

    resumed = Journal(path, OPTIONS)
    assert resumed.outcome(photos[0]) == DONE
    resumed.close()


def test_two_commands_do_not_share_a_journal(path: Path) -> None:
    journal = Journal(path, OPTIONS)

    with pytest.raises(JournalError, match="another command runs"):
        Journal(path, OPTIONS)
    journal.close()


def test_other_options_are_refused(path: Path) -> None:
    Journal(path, OPTIONS).close()

    with pytest.raises(JournalError, match=r"other options.*--restart"):
        Journal(path, {**OPTIONS, "model": "flowers"})


@pytest.mark.parametrize(
    "text", ["a list of my photos\n", '{"name": 1}\n', "[]\n", '{"journal":1,"run_id":"1","options":{}}\n{}\n']
)
def test_other_files_are_refused_and_stay_as_they_are(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")

    with pytest.raises(JournalError, match="no journal"):
        Journal(path, {})

    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("keep", "is_permanent", "stays"), [(False, False, False), (True, False, True), (False, True, True)])
def test_complete_run_deletes_its_journal_unless_it_is_wanted(path: Path, *, keep: bool, is_permanent: bool, stays: bool) -> None:
    Journal(path, OPTIONS, is_permanent=is_permanent).complete(keep=keep)

    assert path.exists() == stays


def test_journal_is_readable_by_its_user_alone(path: Path) -> None:
    Journal(path, OPTIONS).close()

    assert path.stat().st_mode & 0o777 == 0o600


def test_same_command_finds_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    journal = default_journal("http://a", ["photos", "b.png"], OPTIONS)

    assert journal.parent == tmp_path / "rohe-inference" / "journals"
    assert default_journal("http://a", ["b.png", os.fspath(tmp_path / "photos")], OPTIONS) == journal
    assert default_journal("http://b", ["photos", "b.png"], OPTIONS) != journal
    assert default_journal("http://a", ["photos"], OPTIONS) != journal
    assert default_journal("http://a", ["photos", "b.png"], {**OPTIONS, "top_k": 5}) != journal
