"""Targets of the benchmark: required figures, and those of the other contenders in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.report import NAIVE, Row, markdown_table

Table = Sequence[Row]
#: Function from the rows and a contender's name to its figure; None if the run has not measured it.
Measure = Callable[[Table, str], float | None]

EMBEDDED = "embedded"
MONGODB = "redis-minio-mongodb"
BATCHES = "embedded-batches"
_NOT_MEASURED = "not measured"
_DOES_NOT_APPLY = "-"


@dataclass(frozen=True)
class Target:
    """Figure of one of our contenders, with the required value and the aim."""

    figure: str
    contender: str
    measure: Measure
    must: float
    aim: float
    smaller_is_better: bool = False
    shape: str = "{:.2f}"
    #: whether `naive` and the peers have this figure too
    is_shared: bool = True

    def reached(self, ours: float | None) -> str:
        if ours is None:
            return _NOT_MEASURED
        sign = -1 if self.smaller_is_better else 1
        if sign * ours >= sign * self.aim:
            return "yes, and the aim"
        return "yes" if sign * ours >= sign * self.must else "**no**"

    def cells(self, table: Table) -> list[str]:
        """Format the cells: figure, naive, best peer, ours, must reach, aims at, reached."""
        ours = self.measure(table, self.contender)
        naive = self._shown(self.measure(table, NAIVE)) if self.is_shared else _DOES_NOT_APPLY
        peer = self._best_peer(table) if self.is_shared else _DOES_NOT_APPLY
        bounds = [f"{'≤' if self.smaller_is_better else '≥'} {self.shape.format(bound)}" for bound in (self.must, self.aim)]
        return [self.figure, naive, peer, self._shown(ours), *bounds, self.reached(ours)]

    def _best_peer(self, table: Table) -> str:
        names = dict.fromkeys(row["contender"] for row in table if row["kind"] == "peer")
        found = {name: value for name in names if (value := self.measure(table, name)) is not None}
        if not found:
            return _NOT_MEASURED
        best = (min if self.smaller_is_better else max)(found, key=lambda name: found[name])
        return f"{self._shown(found[best])} {best}"

    def _shown(self, value: float | None) -> str:
        return _NOT_MEASURED if value is None else self.shape.format(value)


def _rows(table: Table, **wanted: object) -> list[Row]:
    return [row for row in table if all(row.get(key) == value for key, value in wanted.items())]


def _only(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _closed(key: str, model: str, clients: int) -> Measure:
    """Create the measure of a figure in the closed loop."""

    def measure(table: Table, contender: str) -> float | None:
        return _only(row.get(key) for row in _rows(table, load="closed loop", contender=contender, model=model, clients=clients))

    return measure


def _over(measure: Measure, rival: Callable[[Table], float | None]) -> Measure:
    """Create the measure of a figure ÷ a rival's."""

    def ratio(table: Table, contender: str) -> float | None:
        own, other = measure(table, contender), rival(table)
        return own / other if own is not None and other else None

    return ratio


def _named(name: str, measure: Measure) -> Callable[[Table], float | None]:
    """Create a function that finds a contender's figure by name, ignoring case."""

    def figure(table: Table) -> float | None:
        names = dict.fromkeys(row["contender"] for row in table if row["contender"].casefold() == name)
        return _only(measure(table, variant) for variant in names)

    return figure


def _best_mosec(table: Table) -> float | None:
    """Find Mosec's images per second with one image per request, at its best number of clients."""
    closed = _rows(table, load="closed loop", model="tiny", images_per_request=1)
    return max((row["images_per_s"] for row in closed if row["contender"].casefold() == "mosec"), default=None)


def _tail(table: Table, contender: str) -> float | None:
    """Find p99 ÷ p50 in the open loop, for the worst model."""
    found = _rows(table, load="open loop", contender=contender, share_of_highest_load=0.8)
    return max((row["p99_to_p50"] for row in found), default=None)


def _depth(key: str) -> Measure:
    """Create the measure of a figure at depth 100,000 ÷ at depth 100."""

    def measure(table: Table, contender: str) -> float | None:
        deep, shallow = (
            _only(row.get(key) for row in _rows(table, contender=contender, queue_depth=depth)) for depth in (100_000, 100)
        )
        return deep / shallow if deep is not None and shallow else None

    return measure


def _extra(key: str) -> Measure:
    """Create the measure of a figure that only one row of the contender has."""

    def measure(table: Table, contender: str) -> float | None:
        return _only(row.get(key) for row in _rows(table, contender=contender))

    return measure


def _api_memory(table: Table, _contender: str) -> float | None:
    """Find the MB of the largest API process of all our contenders and models."""
    closed = _rows(table, load="closed loop", kind="ours")
    return max((row["memory_mb"]["api"] for row in closed if "api" in row["memory_mb"]), default=None)


def _start(table: Table, contender: str) -> float | None:
    """Find the seconds until the first answer, for the slowest model."""
    return max((row["start_s"] for row in _rows(table, load="closed loop", contender=contender)), default=None)


_TINY_AT_64 = _closed("images_per_s", "tiny", 64)
_MOBILENET_AT_64 = _closed("ratio_to_limit", "mobilenetv2", 64)
_PHOTO_AT_64 = _closed("images_per_s", "photo", 64)
_OVERHEAD = _closed("overhead_ms", "mobilenetv2", 1)
_OVERHEAD_OVER_OWN = _closed("overhead_over_own_runtime_ms", "mobilenetv2", 1)


def _overhead(figure: str, contender: str, measure: Measure, must_ms: float, aim_ms: float) -> Target:
    return Target(figure, contender, measure, must_ms, aim_ms, smaller_is_better=True, shape="{:.1f}")


TARGETS = (
    Target("MobileNetV2, 64 clients, embedded: images/s ÷ in process", EMBEDDED, _MOBILENET_AT_64, 0.75, 0.90),
    Target("the same through Redis, MinIO, MongoDB", MONGODB, _MOBILENET_AT_64, 0.60, 0.75),
    Target("tiny, 64 clients, embedded: ÷ LitServe", EMBEDDED, _over(_TINY_AT_64, _named("litserve", _TINY_AT_64)), 0.8, 1.5),
    Target("tiny, 64 clients, Redis, MinIO, MongoDB: ÷ naive", MONGODB, _over(_TINY_AT_64, _named(NAIVE, _TINY_AT_64)), 3, 5),
    Target(
        "MobileNetV2, 32 images a request, 8 clients, embedded: images/s ÷ in process",
        BATCHES,
        _closed("ratio_to_limit", "mobilenetv2", 8),
        0.88,
        0.95,
        is_shared=False,
    ),
    Target(
        "the same, tiny: images/s ÷ Mosec's with one image a request",
        BATCHES,
        _over(_closed("images_per_s", "tiny", 8), _best_mosec),
        0.4,
        1,
        is_shared=False,
    ),
    Target("photo, 64 clients, embedded: ÷ Mosec", EMBEDDED, _over(_PHOTO_AT_64, _named("mosec", _PHOTO_AT_64)), 1.15, 1.4),
    Target(
        "photo, 64 clients, embedded: images/s ÷ decoding and LiteRT in process",
        EMBEDDED,
        _closed("ratio_to_decoding", "photo", 64),
        0.75,
        0.85,
    ),
    _overhead("MobileNetV2, one client, embedded: p50 less that in process, ms", EMBEDDED, _OVERHEAD, 4, 2.5),
    _overhead("the same with MinIO, ms", MONGODB, _OVERHEAD, 6, 4),
    _overhead("embedded, less the p50 of its own runtime (ours: LiteRT) in process, ms", EMBEDDED, _OVERHEAD_OVER_OWN, 4, 2.5),
    _overhead("the same with MinIO, less that of its own runtime, ms", MONGODB, _OVERHEAD_OVER_OWN, 6, 4),
    Target("p99 ÷ p50 at 80 % of the highest load, open loop, worst model", EMBEDDED, _tail, 3, 2, smaller_is_better=True),
    Target(
        "time a task at queue depth 100,000 ÷ at 100",
        EMBEDDED,
        _depth("ms_per_image"),
        1.2,
        1.05,
        smaller_is_better=True,
        is_shared=False,
    ),
    Target(
        "CPU a task at queue depth 100,000 ÷ at 100",
        EMBEDDED,
        _depth("cpu_ms_per_image"),
        1.2,
        1.05,
        smaller_is_better=True,
        is_shared=False,
    ),
    Target(
        "two workers, two models, both at work: what they keep of their rates alone, summed",
        "embedded-2-workers",
        _extra("sum_of_shares"),
        0.9,
        1,
        is_shared=False,
    ),
    Target(
        "4 API processes, 64 clients: answers that were not the caller's",
        "embedded-4-api",
        _extra("wrong_answers"),
        0,
        0,
        smaller_is_better=True,
        shape="{:.0f}",
        is_shared=False,
    ),
    Target(
        "largest API process of ours, MB",
        EMBEDDED,
        _api_memory,
        150,
        100,
        smaller_is_better=True,
        shape="{:.0f}",
        is_shared=False,
    ),
    Target("start to first answer, s, worst model", EMBEDDED, _start, 12, 8, smaller_is_better=True, shape="{:.1f}"),
)


def as_markdown(table: Table) -> str:
    """Format the target table from the rows."""
    head = ["figure", "naive", "best peer", "ours", "must reach", "aims at", "reached"]
    return markdown_table(head, [target.cells(table) for target in TARGETS])
