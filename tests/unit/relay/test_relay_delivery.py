"""Delivery from the outbox to the sink: everything arrives, in batches, whichever side fails in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import redis
from relay_rig import POLICY, Rig
from support.collector import running_collector
from support.fakes import FakeSink
from support.metrics import Growth
from support.redis_server import impatient_client, own_redis_server
from support.samples import VECTOR
from support.waiting import until

from inference.errors import ServiceUnavailable
from inference.relay.delivery import Relay, RelayPolicy
from inference.settings import load_settings
from inference.sinks.protocol import NO_CONTEXTS, Refusal, SinkUnavailable
from inference.task_store.outbox import Outbox, outbox_stats
from inference.tracing.tracer import Tracer


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix)


def test_documents_name_the_owner(rig: Rig) -> None:
    owned, others = rig.finish(1, owner="alice"), rig.finish(1)
    rig.relay().relay_once(block_ms=1)
    assert {document["task_id"]: document.get("owner") for document in rig.sink.documents} == {owned[0]: "alice", others[0]: None}


def test_everything_is_delivered_in_order_in_batches(rig: Rig) -> None:
    ids, relay = rig.finish(7), rig.relay()
    assert [relay.relay_once(block_ms=1) for _ in range(4)] == [3, 3, 1, 0]
    assert rig.sink.task_ids == ids
    assert rig.deliveries(ids) == {"delivered"}
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_a_document_is_made_of_the_record(rig: Rig) -> None:
    (task_id,) = rig.finish(1)
    rig.relay().relay_once(block_ms=1)
    (document,) = rig.sink.documents
    assert (document["task_id"], document["pipeline_id"]) == (task_id, "pipeline")
    assert document["request_id"] == rig.store.get(task_id).request_id
    np.testing.assert_array_equal(document["prediction"], VECTOR)


def test_a_sink_that_fails_twice_gets_everything_once(rig: Rig) -> None:
    ids, relay = rig.finish(5), rig.relay(policy=RelayPolicy(batch_size=3, reclaim_after_s=3600))
    rig.sink.failures = 2
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            relay.relay_once(block_ms=1)
        assert rig.deliveries(ids) == {"pending"}
    assert [relay.relay_once(block_ms=1) for _ in range(2)] == [4, 1]
    assert rig.sink.task_ids == ids
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_a_relay_that_runs_goes_on_by_itself_and_closes_its_sink(rig: Rig) -> None:
    rig.sink.failures = 2
    ids, stopping = rig.finish(5), threading.Event()
    thread = threading.Thread(target=rig.relay().run, args=(stopping,))
    thread.start()
    try:
        until(lambda: rig.waiting() == 0, "the delivery of what was there")
        ids += rig.finish(2)
        until(lambda: rig.waiting() == 0, "the delivery of what came later")
    finally:
        stopping.set()
        thread.join(10)
    assert not thread.is_alive()
    assert rig.sink.task_ids == ids
    assert rig.sink.is_closed


class BrokenClient(FakeSink):
    """A sink whose client library raises something of its own for some documents."""

    def __init__(self, breaks_on: set[str]) -> None:
        super().__init__("sink")
        self.breaks_on = breaks_on

    def write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str] = NO_CONTEXTS) -> list[Refusal]:
        if self.breaks_on & {document["task_id"] for document in documents}:
            raise TypeError("not serializable")
        return super().write(documents, contexts)


def test_a_document_that_breaks_the_sinks_client_is_refused_and_the_others_are_delivered(rig: Rig) -> None:
    ids = rig.finish(3)
    sink = BrokenClient({ids[1]})
    assert rig.relay(sink=sink).relay_once(block_ms=1) == 3
    assert sink.task_ids == [ids[0], ids[2]]
    assert rig.store.get(ids[1]).refusals == {"sink": "TypeError: not serializable"}
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_a_client_that_breaks_on_everything_ends_no_relay_and_loses_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ids, stopping = rig.finish(2), threading.Event()
    sink = BrokenClient(set(ids))
    thread = threading.Thread(target=rig.relay(sink=sink).run, args=(stopping,))
    thread.start()
    try:
        until(lambda: "TypeError" in caplog.text, "the failure in the log")
        assert rig.deliveries(ids) == {"pending"}
        sink.breaks_on = set()
        until(lambda: rig.waiting() == 0, "the delivery once the client works")
    finally:
        stopping.set()
        thread.join(10)
    assert sorted(sink.task_ids) == sorted(ids)


def test_what_a_dead_relay_took_is_delivered_by_another(rig: Rig) -> None:
    ids, dead = rig.finish(5), rig.outbox("dead")
    dead.open()
    assert [entry.task_id for entry in dead.take(3, block_ms=1)] == ids[:3]
    relay = rig.relay("alive")
    assert [relay.relay_once(block_ms=1) for _ in range(3)] == [4, 1, 0]
    assert rig.sink.task_ids == ids
    assert rig.pending() == 0


def test_what_a_live_relay_took_is_left_to_it(rig: Rig) -> None:
    rig.finish(3)
    alive = rig.outbox("alive")
    alive.open()
    alive.take(3, block_ms=1)
    assert rig.relay("other", policy=RelayPolicy(reclaim_after_s=3600)).relay_once(block_ms=1) == 0
    assert rig.sink.documents == []


def test_a_relay_that_was_believed_dead_delivers_again_and_harms_nothing(rig: Rig) -> None:
    """Delivery at least once: readers drop duplicates by task id."""
    ids, slow_sink = rig.finish(3), FakeSink("sink")
    slow_sink.failures = 1
    slow = rig.relay("slow", slow_sink)
    with pytest.raises(SinkUnavailable):
        slow.relay_once(block_ms=1)
    assert rig.relay("quick").relay_once(block_ms=1) == 3
    assert slow.relay_once(block_ms=1) == 3
    assert rig.sink.task_ids == slow_sink.task_ids == ids
    assert rig.deliveries(ids) == {"delivered"}
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_two_relays_share_the_work(rig: Rig) -> None:
    ids, policy = rig.finish(12), RelayPolicy(batch_size=3, reclaim_after_s=3600)
    relays = [rig.relay(name, policy=policy) for name in ("a", "b")]
    assert [relay.relay_once(block_ms=1) for _ in range(2) for relay in relays] == [3, 3, 3, 3]
    assert rig.sink.task_ids == ids


def test_the_entry_of_a_record_that_is_gone_is_dropped(rig: Rig) -> None:
    ids = rig.finish(3)
    rig.client.delete(f"{rig.key_prefix}:task:{ids[1]}")
    assert rig.relay().relay_once(block_ms=1) == 3
    assert rig.sink.task_ids == [ids[0], ids[2]]
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_entries_of_records_that_are_all_gone_do_not_reach_the_sink(rig: Rig) -> None:
    (task_id,) = rig.finish(1)
    rig.client.delete(f"{rig.key_prefix}:task:{task_id}")
    rig.sink.failures = 1
    assert rig.relay().relay_once(block_ms=1) == 1
    assert rig.waiting() == 0


def test_opening_an_outbox_again_keeps_what_is_in_it(rig: Rig) -> None:
    rig.finish(2)
    outbox = rig.outbox("relay")
    outbox.open()
    outbox.open()
    assert len(outbox.take(10, block_ms=1)) == 2
    assert outbox.take(10, block_ms=1) == []


def test_an_outbox_whose_server_is_down_is_unavailable() -> None:
    with own_redis_server() as server, impatient_client(server) as client:
        outbox = Outbox(client, "prefix", "sink", "relay")
        outbox.open()
        server.stop()
        calls: list[Callable[[], object]] = [
            outbox.open,
            lambda: outbox.take(1, block_ms=1),
            lambda: outbox.claim(1, idle_s=0),
            lambda: outbox_stats(client, "prefix", "sink"),
        ]
        for call in calls:
            with pytest.raises(ServiceUnavailable):
                call()


def test_what_a_sink_will_never_take_is_a_dead_letter_and_the_rest_arrives(rig: Rig) -> None:
    first, second, third = rig.finish(3)
    rig.sink.refused = {second: "too large"}
    assert rig.relay().relay_once(block_ms=1) == 3
    assert rig.sink.task_ids == [first, third]
    assert rig.waiting() == 0
    refused = rig.store.get(second)
    assert (refused.deliveries, refused.refusals) == ({"sink": "refused"}, {"sink": "too large"})
    assert rig.store.is_dead_letter(second)


def test_one_that_is_stuck_stands_in_nobodys_way(rig: Rig) -> None:
    first, stuck, third = rig.finish(3)
    relay = rig.relay(policy=RelayPolicy(batch_size=3, reclaim_after_s=3600))
    rig.sink.stuck = {stuck}
    with pytest.raises(SinkUnavailable):
        relay.relay_once(block_ms=1)
    assert [rig.deliveries([task_id]) for task_id in (first, stuck, third)] == [{"delivered"}, {"pending"}, {"delivered"}]
    later = rig.finish(2)
    with pytest.raises(SinkUnavailable):
        relay.relay_once(block_ms=1)
    assert rig.sink.task_ids == [first, third, *later]
    assert (rig.waiting(), rig.pending()) == (1, 1)
    rig.sink.stuck = set()
    assert relay.relay_once(block_ms=1) == 1
    assert rig.sink.task_ids == [first, third, *later, stuck]
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_one_that_is_stuck_lets_others_pass_though_it_is_a_whole_batch(rig: Rig) -> None:
    stuck, *others = rig.finish(4)
    relay = rig.relay(policy=RelayPolicy(batch_size=1, reclaim_after_s=3600))
    rig.sink.stuck = {stuck}
    for _ in range(4):
        with pytest.raises(SinkUnavailable):
            relay.relay_once(block_ms=1)
    assert rig.sink.task_ids == others
    assert (rig.waiting(), rig.pending()) == (1, 1)


def test_a_refused_result_next_to_a_stuck_one_does_not_come_again(rig: Rig) -> None:
    refused, stuck, third = rig.finish(3)
    rig.sink.refused, rig.sink.stuck = {refused: "too large"}, {stuck}
    with pytest.raises(SinkUnavailable):
        rig.relay().relay_once(block_ms=1)
    assert [rig.deliveries([task_id]) for task_id in (refused, stuck, third)] == [{"refused"}, {"pending"}, {"delivered"}]
    assert rig.store.is_dead_letter(refused)
    assert (rig.waiting(), rig.pending()) == (1, 1)


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class SinkWithContexts(FakeSink):
    """A sink that keeps the trace contexts that came with the documents."""

    def write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str] = NO_CONTEXTS) -> list[Refusal]:
        self.contexts = dict(contexts)
        return super().write(documents, contexts)


def test_the_trace_context_of_a_task_goes_to_the_sink_while_traces_are_off(rig: Rig) -> None:
    rig.finish(1)
    (task_id,) = rig.finish(1, trace=PARENT)
    sink = SinkWithContexts("sink")
    rig.relay(sink=sink).relay_once(block_ms=1)
    assert (len(sink.documents), sink.contexts) == (2, {task_id: PARENT})


def test_each_attempt_of_a_delivery_has_a_span_that_the_sink_passes_on(rig: Rig) -> None:
    (task_id, stuck) = rig.finish(2, trace=PARENT)
    sink = SinkWithContexts("sink")
    sink.stuck = {stuck}
    with running_collector() as collector:
        tracer = Tracer(load_settings(None, {"tracing": {"endpoint": collector.endpoint}}), "relay")
        relay = Relay(rig.outbox("relay-1"), rig.store, sink, pipeline_id="pipeline", policy=POLICY, tracer=tracer)
        with pytest.raises(SinkUnavailable):
            relay.relay_once(block_ms=1)
        sink.stuck = set()
        sink.refused = {stuck: "too large"}
        relay.relay_once(block_ms=1)
        tracer.close()
    found = [(span.attributes["inference.task.id"], span.attributes.get("error.type")) for span in collector.spans]
    assert found == [(task_id, None), (stuck, "sink_unavailable"), (stuck, "sink_refused")]
    assert {span.parent_id for span in collector.spans} == {PARENT[36:52]}
    assert sink.contexts[stuck][:52] == collector.spans[-1].traceparent[:52]


class TestMetrics:
    def test_results_and_refusals_are_counted_once(self, rig: Rig) -> None:
        relay, growth = rig.relay(), Growth()
        ids = rig.finish(5)
        rig.sink.refused = {ids[0]: "no"}
        while relay.relay_once(block_ms=1):
            pass
        assert growth.of("deliveries_total", sink="sink", outcome="delivered") == 4
        assert growth.of("deliveries_total", sink="sink", outcome="refused") == 1
        assert growth.of("delivery_duration_seconds_count", sink="sink") == 2
        assert growth.of("delivery_retries_total", sink="sink") == 0

    def test_passes_that_fail_are_counted(self, rig: Rig) -> None:
        relay, growth, stopping = rig.relay(), Growth(), threading.Event()
        rig.finish(1)
        rig.sink.failures = 2
        thread = threading.Thread(target=relay.run, args=(stopping,))
        thread.start()
        try:
            until(lambda: growth.of("deliveries_total", sink="sink", outcome="delivered") == 1, "the result is delivered")
        finally:
            stopping.set()
            thread.join(10)
        assert growth.of("delivery_retries_total", sink="sink") == 2
        assert growth.of("delivery_duration_seconds_count", sink="sink") == 3

    def test_results_that_are_gone_are_no_deliveries(self, rig: Rig) -> None:
        relay, growth = rig.relay(), Growth()
        (task_id,) = rig.finish(1)
        rig.client.delete(f"{rig.key_prefix}:task:{task_id}")
        relay.relay_once(block_ms=1)
        assert rig.waiting() == 0
        assert growth.of("deliveries_total", sink="sink", outcome="delivered") == 0
