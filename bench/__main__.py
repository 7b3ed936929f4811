"""`python -m bench`: all contenders in one run, in turn; a table, build/bench.json and the plots of docs/performance.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench import report, workload
from bench.contenders import Batches, Contender, Naive, Ours
from bench.measuring import Measurement, Plan, limit, measure
from bench.peer_contenders import PEERS
from bench.workload import ROOT, Workload

_SERVERS = {"broker": {"url": "${REDIS_URL}"}, "minio": {}, "uploads": {"store": "minio", "bucket": "bench"}}
_MONGODB = {"url": "${MONGODB_URL}", "database": "bench"}
_QUICK = Plan(clients=(1, 64), seconds=5.0, open_loop=(0.8,), rounds=1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the service, beside the model alone.")
    parser.add_argument("--quick", action="store_true", help="one round, fewer numbers of clients; no plots")
    parser.add_argument("--models", nargs="+", default=["tiny", "mobilenetv2", "photo"], choices=["tiny", "mobilenetv2", "photo"])
    parser.add_argument("--peers", action="store_true", help="beside other model servers, each in an environment of its own")
    parser.add_argument("--only", nargs="+", metavar="CONTENDER", help="by name: see the table")
    options = parser.parse_args(arguments)
    plan = _QUICK if options.quick else Plan()
    contenders = [one for one in _contenders(peers=options.peers) if not options.only or one.name in options.only]
    try:
        table = _run(contenders, workload.prepare(options.models), plan)
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    report.write_json(table, ROOT / "build" / "bench.json")
    sys.stdout.write(report.as_markdown(table))
    if not options.quick:
        for file in report.plot(table, ROOT / "docs"):
            _say(f"wrote {file.relative_to(ROOT)}")
    return 0


def _contenders(*, peers: bool) -> list[Contender]:
    services = _services()
    minio = {"endpoint": "${MINIO_ENDPOINT}", "access_key": "${MINIO_ACCESS_KEY}", "secret_key": "${MINIO_SECRET_KEY}"}
    servers = _SERVERS | {"minio": minio, "mongodb": _MONGODB, "kafka": {"bootstrap_servers": "${KAFKA_BOOTSTRAP}"}}
    return [
        Ours("embedded", services, {}),
        Ours("redis-minio-mongodb", services, servers | {"sinks": ["mongodb"]}),
        Ours("redis-minio-kafka", services, servers | {"sinks": ["kafka"]}),
        Batches("embedded-batches", services, {}),
        Naive(report.NAIVE, services),
        *(PEERS if peers else ()),
    ]


def _services() -> dict[str, str]:
    """Addresses of the real servers: `make services` writes them."""
    file = ROOT / "build" / "services.env"
    if not file.exists():
        raise SystemExit("error: the real servers are not up: make services")
    return dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())


def _run(contenders: Sequence[Contender], workloads: Sequence[Workload], plan: Plan) -> list[report.Row]:
    table: list[report.Row] = []
    for work in workloads:
        _say(f"{work.name}: the model in process")
        limits = limit(work)
        rounds: dict[str, list[Measurement]] = {contender.name: [] for contender in contenders}
        for number in range(plan.rounds):
            for contender in contenders:
                measurement = measure(contender, work, plan, limits["prediction"])
                rounds[contender.name].append(measurement)
                _say(f"{work.name}: round {number + 1} of {plan.rounds}: {_summary(measurement)}")
        table += report.limit_rows(work.name, limits)
        for contender in contenders:
            done = rounds[contender.name]
            table += report.rows(done, limits, contender.images_per_request)
            _say(f"{work.name}: {contender.name}: p99 ÷ p50 in the open loop: {report.tail_ratios(done)}")
    report.compare_with_naive(table)
    return table


def _summary(measurement: Measurement) -> str:
    loads = ", ".join(f"{load.requests / load.seconds:.0f}/s at {clients}" for clients, load in measurement.closed.items())
    memory = ", ".join(f"{role} {size:.0f}" for role, size in measurement.memory_mb.items())
    cpu = ", ".join(f"{role} {used:.2f}" for role, used in measurement.cpu_ms_per_image.items())
    return f"{measurement.contender}: {loads}; up in {measurement.start_s:.1f} s; CPU ms: {cpu}; MB: {memory}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
