"""Status as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from inference.runtime.health import OK
from inference.settings.installation import COMMAND
from inference.status.collect import Status
from inference.task_store import QueueStats
from inference.task_store.outbox import RelayInfo

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def status_table(status: Status) -> str:
    """Return short tables, followed by the warnings and problems."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: Status) -> Iterator[str]:
    yield from _table(("STORE", "STATE"), [(store, OK if state == OK else "down") for store, state in status.stores.items()])
    if status.models:
        models = [
            (m.model, m.version, m.queue.depth, _age(m.queue.oldest_age_s), _rate(m.queue), m.workers) for m in status.models
        ]
        yield from _table(("MODEL", "VERSION", "WAITING", "OLDEST", "ENDED/S", "WORKERS"), models)
    if status.workers:
        workers = [
            (w.worker, ", ".join(f"{m.name} {m.version} ({m.predict_ms:.1f} ms)" for m in w.models)) for w in status.workers
        ]
        yield from _table(("WORKER", "WARM MODELS"), workers)
    if status.sinks:
        sinks = [(s.sink, s.outbox.entries, _age(s.outbox.oldest_age_s), _relays(s.relays)) for s in status.sinks]
        yield from _table(("SINK", "WAITING", "OLDEST", "RELAYS"), sinks)
    if status.webhooks and status.webhooks.waiting:
        stats = status.webhooks
        row = (stats.waiting, _age(stats.oldest_age_s), stats.receivers, stats.receivers_down)
        yield from _table(("EVENTS WAITING", "OLDEST", "RECEIVERS", "DOWN"), [row])
    if status.dead_letters is not None:
        yield f"{status.dead_letters} dead letters"
    if status.rejected_messages:
        yield f"{status.rejected_messages} rejected messages ({COMMAND} dead-letters list)"
    if status.unstored_images:
        yield f"{status.unstored_images} images wait for the object store"
    yield from (f"warning: {warning}" for warning in status.warnings)
    yield from (f"! {problem}" for problem in status.problems)
    if not status.problems and not status.warnings:
        yield "all is well"


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    """Yield the rows with aligned columns, then an empty line."""
    cells = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""


def _relays(relays: Sequence[RelayInfo]) -> str:
    return ", ".join(f"{relay.relay} ({relay.held} in hand)" if relay.held else relay.relay for relay in relays) or "none"


def _rate(queue: QueueStats) -> str:
    return f"{queue.drain_rate_per_s:.1f}" if queue.drain_rate_per_s else "-"


def _age(seconds: float) -> str:
    """Return an age in the largest unit of which it has at least two: 90 s, 3 min, 47 h; '-' if nothing waits."""
    if seconds <= 0:
        return "-"
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{seconds // size:.0f} {unit}"
