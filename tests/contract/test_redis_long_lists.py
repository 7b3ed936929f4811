"""The store on Redis with long lists: many tasks of one request id, many that wait."""

from __future__ import annotations

import pytest
import redis
from store_worlds import accept
from support.samples import QUEUE, a_request, an_item
from support.task_pages import ids_of_request, listed_ids
from support.time_travel import let_time_pass

from inference.domain import BatchRequest, TaskStatus
from inference.task_store import TaskFilter
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


@pytest.fixture
def store(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(redis_client, StorePolicy(key_prefix, result_ttl_s=60))


class TestRequestIds:
    """A client may give one request id to everything that it ever sends."""

    def test_records_that_are_gone_leave_the_index(
        self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        index = f"{key_prefix}:request:r"
        kept = accept(store, request_id="r")  # the oldest does not end
        for _ in range(20):
            store.cancel_many([accept(store, request_id="r") for _ in range(200)])
            let_time_pass(redis_client, key_prefix, 61)
        assert redis_client.zcard(index) < 1000
        assert ids_of_request(store, "r") == [kept]

    def test_few_entries_are_looked_at_in_one_call_however_many_are_gone(
        self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        index = f"{key_prefix}:request:r"
        first = accept(store, request_id="r")
        redis_client.zadd(index, {f"gone-{number}": 10 + number for number in range(5000)})
        redis_client.incrby(f"{key_prefix}:seq", 10_000)
        last = accept(store, request_id="r")
        page = store.list_tasks(TaskFilter("r"), limit=10)
        assert page.task_ids == (last,)
        assert page.next_before is not None
        assert 3000 < redis_client.zcard(index) <= 5002 - 499, "it forgets what it has found to be gone"
        assert ids_of_request(store, "r", limit=10) == [last, first]
        assert redis_client.zcard(index) == 2

    def test_a_task_whose_id_it_is_comes_once_behind_many_that_are_gone(
        self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        item = an_item()
        redis_client.zadd(f"{key_prefix}:request:{item.task_id}", {f"gone-{number}": 10 + number for number in range(5000)})
        redis_client.incrby(f"{key_prefix}:seq", 10_000)
        own = accept(store, task_id=item.task_id, item=item, request_id=item.task_id)
        later = accept(store, request_id=own)
        assert ids_of_request(store, own) == [later, own]

    def test_a_page_may_be_as_long_as_it_likes(self, store: RedisTaskStore) -> None:
        ids = [accept(store, request_id="r") for _ in range(2500)]
        page = store.list_tasks(TaskFilter("r"), limit=2400)
        assert (page.task_ids, page.next_before is None) == (tuple(ids[:99:-1]), False)
        assert ids_of_request(store, "r", limit=1000) == ids[::-1]


class TestNewestTasks:
    def test_no_more_than_the_newest_are_kept(self, redis_client: redis.Redis, key_prefix: str) -> None:
        store = RedisTaskStore(redis_client, StorePolicy(key_prefix, index_max=500))
        for number in range(30):
            batch = BatchRequest(f"batch-{number}", tuple(a_request() for _ in range(50)))
            store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        ids = [accept(store) for _ in range(400)]
        listed = listed_ids(store, TaskFilter())
        assert listed[:400] == ids[::-1]
        assert 500 <= len(listed) < 800, "the server removes whole nodes"

    def test_a_page_examines_few_tasks_however_few_match(self, store: RedisTaskStore) -> None:
        wanted = accept(store, request_id="r")
        store.cancel(wanted)
        for number in range(5):
            batch = BatchRequest(f"batch-{number}", tuple(a_request() for _ in range(700)))
            store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        canceled = TaskFilter(statuses=(TaskStatus.CANCELED,))
        page, pages = store.list_tasks(canceled), 1
        while page.next_before is not None:
            assert page.task_ids == ()
            page, pages = store.list_tasks(canceled, before=page.next_before), pages + 1
        assert (page.task_ids, pages) == ((wanted,), 8)

    def test_lost_numbers_refuse_no_task(self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str) -> None:
        """A server that evicts keys may lose the last number, and keep the index."""
        for _ in range(5):
            accept(store)
        redis_client.delete(f"{key_prefix}:seq")
        ids = [accept(store) for _ in range(2)]
        assert listed_ids(store, TaskFilter()) == ids[::-1]


def test_a_lost_message_at_the_end_of_a_long_queue_is_found(store: RedisTaskStore) -> None:
    batches = [BatchRequest(f"batch-{number}", tuple(a_request() for _ in range(1000))) for number in range(12)]
    for batch in batches:
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    ids = [task.task_id for batch in batches for task in batch.tasks]
    store.lease("w", ids[:-1])
    assert [store.find_lost(QUEUE, up_to=None, grace_s=0, limit=5000) for _ in range(3)] == [[], [], ids[-1:]]
