"""Journal of a run: an interrupted run is resumed, and what was sent keeps its Idempotency-Key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rohe_inference.cli.journal import Journal, JournalError, default_journal
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.photos import Photo, find_photos

OPTIONS = {"waits": True, "model": "digits", "shape": (8, 8)}
DONE = Outcome("succeeded", "task-1", {"name": "digits"}, {"class": 3})
BAD = Outcome("refused", error={"code": "invalid_image", "detail": "it is no image"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "run.jsonl"


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(name.encode())
    return find_photos([str(tmp_path)], is_recursive=False)


def resumed(path: Path, journal: Journal) -> Journal:
    """Open the journal again, as after the death of its process."""
    journal.close()
    return Journal(path, OPTIONS)


def test_outcomes_groups_and_keys_outlive_the_process(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    first, second = journal.begin(photos[:2]), journal.begin(photos[2:])
    keys = [journal.idempotency_key(first), journal.idempotency_key(second)]
    journal.accept(first, "batch-1")
    journal.record(photos[0], DONE)

    journal = resumed(path, journal)

    assert [journal.outcome(photo) for photo in photos] == [DONE, None, None]
    assert journal.open_groups() == [first, second]
    assert [group.batch_id for group in journal.open_groups()] == ["batch-1", None]
    assert [journal.idempotency_key(group) for group in journal.open_groups()] == keys
    assert len(set(keys)) == 2
    journal.close()


def test_group_is_in_the_file_before_it_is_sent(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)

    journal.begin(photos)

    assert all(photo.identity in path.read_text(encoding="utf-8") for photo in photos)
    journal.close()


def test_group_whose_photos_have_ended_is_not_open(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    journal.begin(photos)
    for photo in photos:
        journal.record(photo, DONE)

    journal = resumed(path, journal)

    assert journal.open_groups() == []
    journal.close()


def test_photo_that_is_sent_again_belongs_to_its_last_group(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    first = journal.begin(photos)
    journal.accept(first, "batch-1")
    for photo in photos:
        journal.record(photo, BAD)

    journal = resumed(path, journal)
    journal.forget(photos[0])
    assert journal.open_groups() == []
    again = journal.begin(photos[:1])

    journal = resumed(path, journal)
    assert [journal.outcome(photo) for photo in photos] == [None, BAD, BAD]
    assert journal.open_groups() == [again]
    assert journal.open_photos(again) == [photos[0].identity]
    assert journal.idempotency_key(again) != journal.idempotency_key(first)
    journal.close()


def test_forgotten_outcome_is_back_if_nothing_was_sent(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    journal.begin(photos)
    journal.record(photos[0], BAD)
    journal.forget(photos[0])

    journal = resumed(path, journal)

    assert journal.outcome(photos[0]) == BAD
    journal.close()


def test_line_that_was_not_written_to_its_end_is_cut_off(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    journal.record(photos[0], DONE)
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"photo":"half of a li')

    journal = Journal(path, OPTIONS)
    journal.record(photos[1], BAD)

    journal = resumed(path, journal)
    assert [journal.outcome(photo) for photo in photos] == [DONE, BAD, None]
    journal.close()


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

    changed = find_photos([str(tmp_path)], is_recursive=False)

    assert journal.outcome(changed[0]) is None
    journal.close()


def test_restart_forgets_the_run(path: Path, photos: list[Photo]) -> None:
    journal = Journal(path, OPTIONS)
    run_id = journal.run_id
    journal.begin(photos)
    journal.record(photos[0], DONE)
    journal.close()

    journal = Journal(path, OPTIONS, restart=True)

    assert journal.outcome(photos[0]) is None
    assert journal.open_groups() == []
    assert resumed(path, journal).run_id != run_id


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


def test_journal_in_memory_writes_no_file(photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    journal = Journal(None, OPTIONS)
    journal.begin(photos)
    journal.record(photos[0], DONE)

    assert journal.outcome(photos[0]) == DONE
    assert sorted(tmp_path.rglob("*")) == before


def test_same_command_finds_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    journal = default_journal("http://a", ["photos", "b.png"], OPTIONS)

    assert journal.parent == tmp_path / "rohe-inference" / "journals"
    assert default_journal("http://a", ["b.png", os.fspath(tmp_path / "photos")], OPTIONS) == journal
    assert default_journal("http://b", ["photos", "b.png"], OPTIONS) != journal
    assert default_journal("http://a", ["photos"], OPTIONS) != journal
    assert default_journal("http://a", ["photos", "b.png"], {**OPTIONS, "top_k": 5}) != journal
