"""Uploads without a task go once their task must be there or never comes; all others stay."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from support.failing_store import FailingStore
from support.fakes import FakeObjectStore
from support.samples import a_request

from inference.errors import InferenceError, ServiceUnavailable
from inference.lifecycle.task_ids import TaskIds, belongs_to, made_at_ms, new_task_id
from inference.relay import orphans
from inference.relay.orphans import Orphans
from inference.storage.local import LocalObjectStore
from inference.storage.protocol import upload_key
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

AFTER_S, LIFE_S = 900.0, 86_400.0
#: Shortly before midnight.
BEGIN_S = datetime(2026, 1, 31, 23, 50, tzinfo=UTC).timestamp()


class Rig:
    """Uploads of another time than that of the store's server, whose records are all new."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._prefix = key_prefix
        self.store = FailingStore(RedisTaskStore(client, StorePolicy(key_prefix, result_ttl_s=LIFE_S)))
        self.objects = FakeObjectStore()
        self.now_s = BEGIN_S
        self.tag = self.store.get_tag()
        self.lives_noted_since(0)
        self.orphans = self.new()

    def new(self) -> Orphans:
        return Orphans(self.store, self.objects, after_s=AFTER_S, clock=lambda: self.now_s)

    def upload(self, *, is_accepted: bool = False, tag: str = "") -> str:
        """Gives its key."""
        task_id = new_task_id(round(self.now_s * 1000), tag or self.tag)
        if is_accepted:
            self.store.accept(a_request(task_id=task_id), enqueue=None, max_queue_depth=0)
        key = upload_key(task_id, datetime.fromtimestamp(self.now_s, UTC))
        self.objects.put(key, b"")
        return key

    def lives_noted_since(self, since_s: float) -> None:
        """Since when the store notes how long records live, seconds."""
        self._redis.set(f"{self._prefix}:seq:lives-since", round(since_s * 1000))

    def note_life(self, life_s: float) -> None:
        """A process lets records live for `life_s`."""
        RedisTaskStore(self._redis, StorePolicy(self._prefix, result_ttl_s=life_s)).get_record_life()

    def forget_everything(self) -> None:
        self._redis.delete(*self._redis.scan_iter(f"{self._prefix}:*"))

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds

    @property
    def keys(self) -> set[str]:
        return set(self.objects.objects)


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix)


def test_one_without_a_task_goes_once_it_is_old_enough(rig: Rig) -> None:
    orphan, kept = rig.upload(), rig.upload(is_accepted=True)
    rig.orphans.check_once()
    rig.pass_s(AFTER_S - 1)
    rig.orphans.check_once()
    assert rig.keys == {orphan, kept}
    rig.pass_s(2)
    assert rig.orphans.check_once() is False
    assert rig.keys == {kept}


def test_each_is_looked_at_once_and_days_follow_one_another(rig: Rig) -> None:
    uploads = []
    for number in range(40):
        uploads.append(rig.upload(is_accepted=number % 2 == 0))
        rig.pass_s(60)
        rig.orphans.check_once()
    rig.pass_s(2 * AFTER_S)
    rig.orphans.check_once()
    assert rig.keys == set(uploads[::2])


def test_after_a_start_those_are_found_whose_records_cannot_be_gone_yet(rig: Rig) -> None:
    expired = rig.upload()
    rig.pass_s(LIFE_S / 2)
    rig.upload()
    rig.pass_s(LIFE_S / 2)
    rig.new().check_once()
    assert rig.keys == {expired}


def test_those_of_other_stores_and_of_no_store_stay(rig: Rig) -> None:
    others = {rig.upload(tag="ffffff")}
    day = rig.upload(is_accepted=True).rpartition("/")[0]
    others |= {f"{day}/{name}" for name in ("cat.jpg", "zz", "0", f"{'0' * 26}{rig.tag}", rig.tag)}
    for key in others:
        rig.objects.put(key, b"")
    rig.upload()
    rig.pass_s(AFTER_S + 1)
    rig.orphans.check_once()
    assert others <= rig.keys
    assert len(rig.keys) == len(others) + 1


def test_a_store_that_forgot_everything_is_another_one(rig: Rig) -> None:
    uploads = {rig.upload(), rig.upload()}
    rig.forget_everything()
    rig.lives_noted_since(0)
    rig.pass_s(AFTER_S + 1)
    rig.orphans.check_once()
    assert rig.keys == uploads


def test_many_take_several_looks(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_CHECK_SIZE", 10)
    monkeypatch.setattr(orphans, "_IDS", 3)
    rig.orphans = rig.new()
    kept = {rig.upload(is_accepted=True) for _ in range(25)}
    for _ in range(25):
        rig.upload()
    rig.pass_s(AFTER_S + 1)
    looks = 1
    while rig.orphans.check_once():
        looks += 1
    assert (rig.keys, looks) == (kept, 6)


@pytest.mark.parametrize("what", ["store", "objects"])
def test_what_a_failure_left_is_looked_at_again(rig: Rig, what: str) -> None:
    rig.upload()
    rig.pass_s(AFTER_S + 1)
    getattr(rig, what).available = False
    with pytest.raises(ServiceUnavailable):
        rig.orphans.check_once()
    getattr(rig, what).available = True
    rig.orphans.check_once()
    assert rig.keys == set()


@pytest.mark.parametrize("error", [InferenceError("locked"), TypeError("odd")])
def test_one_that_cannot_be_deleted_keeps_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    odd, delete = rig.upload(), rig.objects.delete
    rig.upload()

    def sometimes(key: str) -> None:
        if key == odd:
            raise error
        delete(key)

    monkeypatch.setattr(rig.objects, "delete", sometimes)
    rig.pass_s(AFTER_S + 1)
    rig.orphans.check_once()
    assert rig.keys == {odd}


def test_those_of_a_folder_go_too(rig: Rig, tmp_path: Path) -> None:
    objects = LocalObjectStore(tmp_path)
    rig.objects = objects  # type: ignore[assignment]
    orphan, kept = rig.upload(), rig.upload(is_accepted=True)
    rig.pass_s(AFTER_S + 1)
    rig.new().check_once()
    day = orphan.rpartition("/")[0]
    assert objects.list_keys(f"{day}/", limit=10) == [kept]


def test_it_looks_again_soon_while_there_are_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_CHECK_SIZE", 10)
    rig.orphans = rig.new()
    for _ in range(15):
        rig.upload()
    rig.pass_s(AFTER_S + 1)
    assert [rig.orphans.check() for _ in range(2)] == [1, 60]


def test_records_that_live_too_short_for_it_are_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    kept = {rig.upload()}
    rig.note_life(AFTER_S)
    for _ in range(5):
        rig.pass_s(AFTER_S)
        assert rig.orphans.check() == 60
    assert rig.keys == kept
    assert len([record for record in caplog.records if "uploads.orphan_after_s" in record.getMessage()]) == 1


def test_those_stay_whose_records_may_be_gone(rig: Rig) -> None:
    """Records lived for a shorter time before the settings were changed, or for one that nobody noted."""
    old = {rig.upload()}
    rig.pass_s(3600)
    unnoted = {rig.upload()}
    rig.pass_s(60)
    rig.lives_noted_since(rig.now_s)
    rig.pass_s(AFTER_S + 1)
    rig.new().check_once()
    assert rig.keys == old | unnoted
    rig.lives_noted_since(0)
    rig.note_life(3600)
    rig.new().check_once()
    assert rig.keys == old


def test_an_id_is_a_uuid_of_version_7() -> None:
    ids = {new_task_id(1_700_000_000_123, "00abcd") for _ in range(1000)}
    assert len(ids) == 1000
    for task_id in ids:
        assert (len(task_id), task_id[12], task_id[16] in "89ab", task_id[26:]) == (32, "7", True, "00abcd")
        assert made_at_ms(task_id) == 1_700_000_000_123
        assert belongs_to(task_id, "00abcd")
        assert not belongs_to(task_id, "11abcd")


def test_a_key_has_the_day_of_its_id(rig: Rig) -> None:
    midnight = datetime(2026, 2, 1, tzinfo=UTC).timestamp()
    for at_s, day in ((midnight - 0.001, "2026/01/31"), (midnight, "2026/02/01"), (midnight - 0.0004, "2026/02/01")):
        task_id, key = TaskIds(rig.store, max_age_s=1, clock=lambda at_s=at_s: at_s).new()  # type: ignore[misc]
        assert key == f"uploads/{day}/{task_id}"
