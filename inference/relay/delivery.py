"""Delivery of results from the outbox to a sink, in batches, until the sink has confirmed them."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference.errors import ServiceUnavailable
from inference.lifecycle.task_log import task_fields
from inference.metrics.relay import deliveries, delivery_duration, delivery_retries
from inference.relay.tracing import DeliverySpans
from inference.runtime.log_context import log_context
from inference.runtime.loop_watch import TURN_LIMIT_S, LoopWatch
from inference.sinks.protocol import Refusal, ResultSink, SinkUnavailable, StoredResult, result_document
from inference.task_store.outbox import Outbox, OutboxEntry
from inference.task_store.stores import DeliveryStore

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer

#: Result documents by task id.
Documents = Mapping[str, Mapping[str, Any]]

logger = logging.getLogger(__name__)

#: Time for which an idle relay waits for the next entry, milliseconds.
_BLOCK_MS = 1000
#: Interval between two searches for entries that other relays left, and between two heartbeats, seconds.
_CLAIM_INTERVAL_S = 1.0
#: Calls of a sink that one turn may make one after the other: writing, looking again, erasing.
_CALLS_A_TURN = 4


@dataclass(frozen=True)
class RelayPolicy:
    batch_size: int = 200
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    reclaim_after_s: float = 30.0
    #: pause after a batch that was not full, so that the next one is fuller
    linger_s: float = 0.0
    #: longest time of one call of the sink, seconds
    sink_timeout_s: float = 0.0


class Relay:
    """Delivers the entries of one sink. A sink that is down delays its own entries and loses none.

    Args:
        tracer: None while traces are off.
    """

    def __init__(
        self,
        outbox: Outbox,
        store: DeliveryStore,
        sink: ResultSink,
        *,
        pipeline_id: str,
        policy: RelayPolicy,
        tracer: Tracer | None = None,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._sink = sink
        self._pipeline_id = pipeline_id
        self._policy = policy
        self._tracer = tracer
        #: entries that were taken from the outbox and are not delivered yet
        self._held: list[OutboxEntry] = []
        #: time of the next search for entries that other relays left, `time.monotonic()`
        self._next_claim_at = 0.0
        self._delivered = deliveries.labels(sink.name, "delivered")
        self._refused = deliveries.labels(sink.name, "refused")
        self._retries = delivery_retries.labels(sink.name)
        self._duration = delivery_duration.labels(sink.name)
        self.watch = LoopWatch()
        self.turn_limit_s = TURN_LIMIT_S + policy.max_backoff_s + _CALLS_A_TURN * policy.sink_timeout_s

    def run(self, stopping: threading.Event) -> None:
        """Deliver until `stopping` is set; no error ends the loop."""
        failures = 0
        while not stopping.is_set():
            self.watch.turn()
            try:
                count = self.relay_once(block_ms=_BLOCK_MS)
                failures = 0
                if 0 < count < self._policy.batch_size:
                    stopping.wait(self._policy.linger_s)
            except Exception as error:
                failures += 1
                self._retries.inc()
                self._next_claim_at = 0.0  # the server may have lost the outbox
                pause_s = self._pause_s(failures)
                is_outage = isinstance(error, SinkUnavailable | ServiceUnavailable)
                logger.warning("%s: %s; retrying in %.1f s", self._sink.name, error, pause_s, exc_info=not is_outage)
                stopping.wait(pause_s)
        self._sink.close()

    def relay_once(self, *, block_ms: int) -> int:
        """Deliver one batch, entries of an earlier failure first. Returns the number of entries taken."""
        if time.monotonic() >= self._next_claim_at:
            self._outbox.open()
            self._held = self._held or self._outbox.claim(self._policy.batch_size, idle_s=self._policy.reclaim_after_s)
            if len(self._held) < self._policy.batch_size:  # else there may be more entries
                self._next_claim_at = time.monotonic() + _CLAIM_INTERVAL_S
        self._take(block_ms)
        taken = len(self._held)
        self._deliver()
        return taken

    def _take(self, block_ms: int) -> None:
        policy = self._policy
        if not self._held:
            self._held = self._outbox.take(policy.batch_size, block_ms=block_ms)
        elif len(self._held) <= policy.batch_size:
            # Entries of an earlier failure must not block new ones: there is always room for one more.
            self._held += self._outbox.take(policy.batch_size + 1 - len(self._held), block_ms=1)

    def _deliver(self) -> None:
        """Write the held results, then erase. Raises SinkUnavailable, ServiceUnavailable; the rest is then still held."""
        self._deliver_results([entry for entry in self._held if entry.erasure is None])
        self._erase_results([entry for entry in self._held if entry.erasure is not None])

    def _deliver_results(self, entries: Sequence[OutboxEntry]) -> None:
        tasks = self._store.get_completed([entry.task_id for entry in entries]) if entries else []
        documents, contexts = [], {}
        for entry, task in zip(entries, tasks, strict=True):
            if task is None:
                reason = "was erased, or Redis evicted its record"
                with log_context(task_id=entry.task_id):
                    logger.warning("%s: task %s %s; nothing to deliver", self._sink.name, entry.task_id, reason)
            else:
                documents.append(result_document(task, self._pipeline_id))
                if task.trace:
                    contexts[task.task_id] = task.trace
        written = {document["task_id"]: document for document in documents}
        try:
            refusals = self._write_traced(documents, contexts) if documents else []
        except SinkUnavailable as error:
            done = error.delivered | {refusal.task_id for refusal in error.refusals}
            self._record([entry for entry in entries if entry.task_id in done], error.refusals, written)
            raise
        self._record(entries, refusals, written)

    def _erase_results(self, orders: Sequence[OutboxEntry]) -> None:
        """Carry out orders of erasures, except those whose results another relay may be about to write."""
        if not orders:
            return
        awaited = self._outbox.find_results_before(orders)
        self._erase_now([order for order in orders if order.task_id not in awaited])
        if awaited:
            raise SinkUnavailable("results that are to be erased are being written by another relay")

    def _erase_now(self, orders: Sequence[OutboxEntry]) -> None:
        erasures = [order.erasure for order in orders if order.erasure is not None]
        if not erasures:
            return
        results = [StoredResult(o.task_id, e.own_request_id) for o, e in zip(orders, erasures, strict=True)]
        erased = self._sink.erase(results)
        done = [(o.entry_id, e.erasure_id, is_erased) for o, e, is_erased in zip(orders, erasures, erased, strict=True)]
        self._store.confirm_erasures(self._sink.name, done)
        self._release(orders)

    def _write_traced(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str]) -> list[Refusal]:
        """Write documents as `_write` does, in spans of those tasks that have a trace context."""
        if not contexts:
            return self._write(documents, contexts)
        spans = DeliverySpans(self._tracer, self._sink.name, contexts)
        try:
            refusals = self._write(documents, spans.contexts)
        except Exception as error:
            spans.end(error.refusals if isinstance(error, SinkUnavailable) else (), failure=error)
            raise
        spans.end(refusals)
        return refusals

    def _write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str]) -> list[Refusal]:
        """Write documents; refuse a document on which the sink's client fails, so that the others are delivered.

        Raises:
            SinkUnavailable: as `ResultSink.write`.
            Exception: the client fails on every document, so the documents are not the cause.
        """
        try:
            with self._duration.time():
                return self._sink.write(documents, contexts)
        except SinkUnavailable:
            raise
        except Exception:
            if len(documents) == 1:
                raise
            logger.exception("%s: a batch of %d results failed; they are written one by one", self._sink.name, len(documents))
        refusals: list[Refusal] = []
        failures: dict[str, Exception] = {}
        for document in documents:
            self.watch.turn()
            try:
                refusals += self._sink.write([document], contexts)
            except SinkUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 client libraries raise errors of any type
                failures[document["task_id"]] = error
        if len(failures) == len(documents):
            raise next(iter(failures.values()))
        return refusals + [Refusal(task_id, f"{type(error).__name__}: {error}") for task_id, error in failures.items()]

    def _record(self, entries: Sequence[OutboxEntry], refusals: Sequence[Refusal], documents: Documents) -> None:
        """Record the state of entries in the store, and release them.

        Args:
            documents: by task id, of the results that there are.
        """
        reasons = {refusal.task_id: refusal.reason for refusal in refusals}
        taken = [(entry.entry_id, entry.task_id) for entry in entries if entry.task_id not in reasons]
        refused = [(e.entry_id, e.task_id, reasons[e.task_id]) for e in entries if e.task_id in reasons]
        if taken:
            self._store.confirm_deliveries(self._sink.name, taken)
        for _, task_id, reason in refused:
            with log_context(**_log_fields(documents[task_id])):
                logger.error("%s refuses the result of task %s: %s", self._sink.name, task_id, reason)
        if refused:
            self._store.refuse_deliveries(self._sink.name, refused)
        self._delivered.inc(sum(task_id in documents for _, task_id in taken))
        self._refused.inc(len(refused))
        self._release(entries)

    def _release(self, entries: Sequence[OutboxEntry]) -> None:
        done = {entry.entry_id for entry in entries}
        self._held = [entry for entry in self._held if entry.entry_id not in done]

    def _pause_s(self, failures: int) -> float:
        longest: float = min(self._policy.max_backoff_s, self._policy.backoff_s * 2 ** (failures - 1))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 jitter, not a secret


def _log_fields(document: Mapping[str, Any]) -> dict[str, str]:
    task_id, model, owner = document["task_id"], document["inference_model_id"], document.get("owner", "")
    return task_fields(task_id, document["request_id"], "", model=model, owner=owner)
