"""`python -m bench.capacity`: the processes, stores, cores and GB that a load needs, from the CPU time of the last full run.

Calculated, not measured: each process is taken to need the CPU time per image that it needed on one machine.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from bench import page, report
from bench.report import Row

BEGIN = "<!-- from here to the end mark: written by `python -m bench.capacity --write` -->"
END = "<!-- the end of what `python -m bench.capacity --write` writes -->"
PAGE = page.DOCS / "scaling.md"
LOADS_PER_HOUR = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
MODELS = ("tiny", "mobilenetv2", "photo")
_SECONDS_PER_HOUR = 3600
#: Headings of the fields of `Installation`.
_COLUMNS = (
    "images an hour",
    "images/s",
    "API processes",
    "workers",
    "relays",
    "Redis servers",
    "GB in Redis",
    "Kafka partitions",
    "object store, MB/s",
    "GB stored",
    "cores",
    "GB of memory",
)
#: Two of each kind, so that one may die.
_AT_LEAST = 2


@dataclass(frozen=True)
class Assumptions:
    """Values that are not measured by the bench: change them to those of an installation."""

    #: share of its CPU time that a process uses on average; the rest is for bursts and for the loss of another one
    utilization: float = 0.6
    #: cores of a worker and its predictor, together
    worker_cores: int = 4
    #: size of an uploaded image, bytes: that of samples/chelsea.jpg
    image_bytes: int = 61_419
    #: bytes in Redis of the record of a task that has ended, with 1,000 classes: 2 KB, 4 bytes a class, a quarter on top
    record_bytes: int = 7_560
    #: task_store.result_ttl_s
    result_ttl_s: int = 3_600
    #: uploads.retention_hours
    retention_hours: int = 24
    #: size of a result with 1,000 classes as JSON, bytes
    result_bytes: int = 13_500
    #: rate of one partition of Kafka, bytes per second
    partition_bytes_per_s: int = 5_000_000


@dataclass(frozen=True)
class Costs:
    """CPU time that an image costs each process, milliseconds, and the memory of one process, MB."""

    api_ms: float
    worker_ms: float
    predictor_ms: float
    relay_ms: float
    redis_ms: float
    object_store_ms: float
    sink_ms: float
    api_mb: float
    worker_mb: float
    relay_mb: float


@dataclass(frozen=True)
class Installation:
    """Needs of a load. Numbers of processes, cores, GB (10⁹ bytes), bytes per second in MB/s."""

    images_per_hour: int
    images_per_s: float
    api_processes: int
    workers: int
    relays: int
    redis_servers: int
    redis_gb: float
    kafka_partitions: int
    object_store_mb_per_s: float
    object_store_gb: float
    cores: int
    memory_gb: float


def costs(table: Iterable[Row], model: str, sink: str = "kafka") -> Costs:
    """Find the costs of a model in the rows of a full run, with one image per request and most clients.

    Raises ValueError if the run has no such row.
    """
    contender = f"redis-minio-{sink}"
    rows = [row for row in table if row["contender"] == contender and row["model"] == model and row.get("cpu_ms_by_process")]
    if not rows:
        raise ValueError(f"the run has no CPU time by process of {contender} with {model}")
    found = max(rows, key=lambda row: int(row["clients"]))
    cpu, memory = found["cpu_ms_by_process"], found["memory_mb"]
    return Costs(
        api_ms=cpu["api"],
        worker_ms=cpu["worker"],
        predictor_ms=cpu["predictor"],
        relay_ms=cpu["relay"],
        redis_ms=cpu["redis"],
        object_store_ms=cpu["minio"],
        sink_ms=cpu[sink],
        api_mb=memory["api"],
        worker_mb=memory["worker"] + memory["predictor"],
        relay_mb=memory["relay"],
    )


def installation(images_per_hour: int, cost: Costs, given: Assumptions) -> Installation:
    """Calculate the needs of a load."""
    per_s = images_per_hour / _SECONDS_PER_HOUR
    apis = _processes(per_s, cost.api_ms, given.utilization)
    workers = _processes(per_s, cost.worker_ms + cost.predictor_ms, given.utilization * given.worker_cores)
    relays = _processes(per_s, cost.relay_ms, given.utilization)
    servers = max(1, math.ceil(_busy(per_s, cost.redis_ms) / given.utilization))
    redis_gb = per_s * given.result_ttl_s * given.record_bytes / 1e9
    stores = _busy(per_s, cost.object_store_ms + cost.sink_ms) / given.utilization
    own_mb = apis * cost.api_mb + workers * cost.worker_mb + relays * cost.relay_mb
    return Installation(
        images_per_hour=images_per_hour,
        images_per_s=per_s,
        api_processes=apis,
        workers=workers,
        relays=relays,
        redis_servers=servers,
        redis_gb=redis_gb,
        kafka_partitions=max(_AT_LEAST, math.ceil(per_s * given.result_bytes / given.partition_bytes_per_s)),
        object_store_mb_per_s=per_s * given.image_bytes / 1e6,
        object_store_gb=per_s * given.retention_hours * _SECONDS_PER_HOUR * given.image_bytes / 1e9,
        cores=math.ceil(apis + workers * given.worker_cores + relays + servers + stores),
        memory_gb=own_mb / 1e3 + redis_gb,
    )


def _busy(per_s: float, cost_ms: float) -> float:
    """Convert a rate and the CPU time of an image to the cores that are busy on average."""
    return per_s * cost_ms / 1000


def _processes(per_s: float, cost_ms: float, cores_each: float) -> int:
    return max(_AT_LEAST, math.ceil(_busy(per_s, cost_ms) / cores_each))


def walls_as_markdown(table: Sequence[Row]) -> str:
    """Create the table of the highest rates of one process of each kind, with all of a core's time."""
    lines = [
        "| one process, one core | " + " | ".join(MODELS) + " |",
        "| --- |" + " --- |" * len(MODELS),
    ]
    of_kafka = [costs(table, model) for model in MODELS]
    of_mongodb = [costs(table, model, "mongodb") for model in MODELS]
    for name, column, found in (
        ("predictor, each core", "predictor_ms", of_kafka),
        ("worker without its predictor", "worker_ms", of_kafka),
        ("API process", "api_ms", of_kafka),
        ("Redis", "redis_ms", of_kafka),
        ("relay to Kafka", "relay_ms", of_kafka),
        ("relay to MongoDB", "relay_ms", of_mongodb),
        ("MinIO, each core", "object_store_ms", of_kafka),
    ):
        rates = (f"{_rounded(1000 / getattr(cost, column)):,}" for cost in found)
        lines.append(f"| {name} | {' | '.join(rates)} |")
    return "\n".join(lines) + "\n"


def _rounded(value: float) -> int:
    """Round to two digits: measurements differ by more than that."""
    digits = 1 - math.floor(math.log10(value)) if value > 0 else 0
    return int(round(value, digits))


def loads_as_markdown(cost: Costs, given: Assumptions, loads: Sequence[int] = LOADS_PER_HOUR) -> str:
    """Create the table of the needs of each load."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "| --- |" + " --- |" * (len(_COLUMNS) - 1)]
    for load in loads:
        need = installation(load, cost, given)
        cells = (
            f"{need.images_per_hour:,}",
            f"{need.images_per_s:,.0f}",
            f"{need.api_processes:,}",
            f"{need.workers:,}",
            f"{need.relays:,}",
            f"{need.redis_servers:,}",
            f"{need.redis_gb:,.1f}",
            f"{need.kafka_partitions:,}",
            f"{need.object_store_mb_per_s:,.1f}",
            f"{need.object_store_gb:,.0f}",
            f"{need.cores:,}",
            f"{need.memory_gb:,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_markdown(table: Sequence[Row], machine: str) -> str:
    """Create the text of docs/scaling.md between its marks."""
    return (
        f"Measured on: {machine}. Images per second of one process that has a core for itself, from the CPU time an image:\n\n"
        f"{walls_as_markdown(table)}\n"
        "Calculated from that, for photos of the default model, one in each request, to Kafka:\n\n"
        f"{loads_as_markdown(costs(table, 'photo'), Assumptions())}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table for a model and given assumptions, or write the page again."""
    options = _parser().parse_args(arguments)
    table = report.read_json(page.RESULTS / "bench.json")
    if options.write:
        machine = (page.RESULTS / "machine.txt").read_text(encoding="utf-8").strip()
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(page.replace_between_marks(text, as_markdown(table, machine), BEGIN, END), encoding="utf-8")
        return 0
    given = Assumptions(**{field.name: getattr(options, field.name) for field in fields(Assumptions)})
    cost = costs(table, options.model, options.sink)
    if options.predictor_ms is not None:
        cost = replace(cost, predictor_ms=options.predictor_ms)
    sys.stdout.write(loads_as_markdown(cost, given, options.loads))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="Calculate what a load needs.")
    parser.add_argument("loads", nargs="*", type=int, default=LOADS_PER_HOUR, help="images an hour (default: those of the page)")
    parser.add_argument("--model", choices=MODELS, default="photo")
    parser.add_argument("--sink", choices=["kafka", "mongodb"], default="kafka")
    parser.add_argument("--predictor-ms", type=float, help="CPU time an image of your model, ms (default: what was measured)")
    parser.add_argument("--write", action="store_true", help="write docs/scaling.md again from bench/results/")
    for field in fields(Assumptions):
        default = field.default
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(default), default=default, help=f"default: {default}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
