"""Uploads and every task store: whose they are, of which there is no task, and which are not stored yet."""

from __future__ import annotations

import re
import time

import pytest
from store_worlds import RESULT_TTL_S, StoreWorld, accept, running
from support.samples import a_success

from inference.errors import ServiceUnavailable
from inference.task_store import Commit, TaskStore


def test_a_store_has_one_tag(store: TaskStore) -> None:
    assert re.fullmatch("[0-9a-f]{6}", store.get_tag())
    assert store.get_tag() == store.get_tag()


def test_what_has_no_record_is_unknown(store: TaskStore) -> None:
    known, withdrawn = accept(store), accept(store)
    store.withdraw(withdrawn)
    assert store.find_unknown(store.get_tag(), [known, withdrawn, "nobody"]) == [withdrawn, "nobody"]
    assert store.find_unknown(store.get_tag(), []) == []


def test_of_another_store_nothing_is_unknown(store: TaskStore) -> None:
    assert store.find_unknown("ffffff", ["nobody"]) == []


class TestKeptImages:
    def test_one_is_kept_until_it_is_stored(self, store: TaskStore) -> None:
        first, second = accept(store), accept(store)
        assert store.keep_image(first, b"image")
        time.sleep(0.002)  # a clock of milliseconds
        assert store.keep_image(second, b"another")
        assert (store.list_kept_images(10), store.list_kept_images(1), store.count_kept_images()) == ([first, second], [first], 2)
        assert store.get_kept_image(first) == b"image"
        assert not store.get(first).is_image_stored
        store.drop_image(first, is_stored=True)
        assert (store.list_kept_images(10), store.get_kept_image(first)) == ([second], None)
        assert store.get(first).is_image_stored

    def test_one_that_is_given_up_stays_told(self, store: TaskStore) -> None:
        task_id = accept(store)
        store.keep_image(task_id, b"image")
        store.drop_image(task_id, is_stored=False)
        assert (store.count_kept_images(), store.get(task_id).is_image_stored) == (0, False)

    def test_the_end_of_its_task_changes_nothing(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        store.keep_image(task_id, b"image")
        store.commit("w", [Commit(task_id, 1, a_success())])
        assert store.get_kept_image(task_id) == b"image"
        assert not store.get(task_id).is_image_stored

    def test_of_a_task_that_is_gone_none_is_kept(self, store: TaskStore) -> None:
        assert not store.keep_image("nobody", b"image")
        assert (store.list_kept_images(10), store.get_many(["nobody"])) == ([], [None])

    def test_dropping_what_is_gone_makes_no_record(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w")
        world.store.keep_image(task_id, b"image")
        world.store.commit("w", [Commit(task_id, 1, a_success())])
        world.let_pass(RESULT_TTL_S + 1)
        world.store.drop_image(task_id, is_stored=True)
        assert world.store.get_many([task_id]) == [None]


def test_a_store_that_is_down_says_so(world: StoreWorld) -> None:
    world.take_down()
    store = world.store
    for call in (
        store.get_tag,
        store.count_kept_images,
        lambda: store.list_kept_images(1),
        lambda: store.find_unknown("abc123", ["x"]),
    ):
        with pytest.raises(ServiceUnavailable):
            call()
