"""`python -m bench`: all contenders in one run, one after another; a full run is published in bench/results/ and docs."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bench import closed_loop, depth, machine, page, report, scaling, servers, targets, workload
from bench.contenders import Batches, Contender, Naive, Ours
from bench.peer_contenders import PEERS
from bench.report import Row
from bench.rounds import Measurement, Plan, limit, measure, reason
from bench.workload import ROOT, Workload

_MODELS = ["tiny", "mobilenetv2", "photo"]
_QUICK = Plan(clients=(1, 8, 64), open_loop=(0.8,), rounds=1)
_JSON = ROOT / "build" / "bench.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code is 1 if a contender failed, and the rows of the others are published nevertheless."""
    options = _parser().parse_args(arguments)
    if options.render:
        _render()
        return 0
    try:
        table = _run(options, _QUICK if options.quick else Plan(rounds=options.rounds))
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    report.write_json(table, _JSON)
    sys.stdout.write(f"{report.as_markdown(table)}\n{targets.as_markdown(table)}")
    if not (options.quick or options.only or options.models != _MODELS):
        page.save(table, machine.description())
        _render()
    failed = [row for row in table if row.get("error")]
    for row in failed:
        _print(f"FAILED: {row['contender']} with {row['model']}: {row['error']}")
    return 1 if failed else 0


def _render() -> None:
    for file in page.render():
        _print(f"wrote {file.relative_to(ROOT)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare the service with the model alone.")
    parser.add_argument("--quick", action="store_true", help="one round, fewer clients; published results are not changed")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; the medians count (default: 3)")
    parser.add_argument("--models", nargs="+", default=_MODELS, choices=_MODELS)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help=f"contenders as in the table; {', '.join(_OTHERS)}")
    parser.add_argument("--peers", action="store_true", help="also measure other model servers, in separate environments")
    parser.add_argument("--render", action="store_true", help="create tables, plots and page again from bench/results")
    return parser


#: Measurements in addition to the contenders, once per run.
_OTHERS: dict[str, Callable[[Plan], list[Row]]] = {
    "queue-depth": lambda plan: depth.measure(plan.rounds),
    "two-workers": lambda plan: scaling.two_workers(plan.longest_s, plan.rounds),
    "checked-answers": lambda plan: scaling.checked_answers(plan.seconds),
}


def _contenders(services: Mapping[str, str], *, peers: bool = False) -> list[Contender]:
    minio = {"endpoint": "${MINIO_ENDPOINT}", "access_key": "${MINIO_ACCESS_KEY}", "secret_key": "${MINIO_SECRET_KEY}"}
    on_servers = {
        "broker": {"url": "${REDIS_URL}"},
        "s3": minio,
        "uploads": {"store": "s3", "bucket": "bench"},
        "mongodb": {"url": "${MONGODB_URL}", "database": "bench"},
        "kafka": {"bootstrap_servers": "${KAFKA_BOOTSTRAP}"},
    }
    mongodb, kafka = on_servers | {"sinks": ["mongodb"]}, on_servers | {"sinks": ["kafka"]}
    return [
        Ours("embedded", services, {}),
        Ours("redis-minio-mongodb", services, mongodb, servers=("redis", "minio", "mongodb")),
        Ours("redis-minio-kafka", services, kafka, servers=("redis", "minio", "kafka")),
        Batches("embedded-batches", services, {}),
        Naive(report.NAIVE, services),
        *(PEERS if peers else ()),
    ]


def _services() -> dict[str, str]:
    """Read the addresses of the real servers, which `make services` writes."""
    file = ROOT / "build" / "services.env"
    if not file.exists():
        raise RuntimeError("the real servers are not running: start them with `make services`")
    return dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())


def _run(options: argparse.Namespace, plan: Plan) -> list[Row]:
    services = _services()
    contenders = _contenders(services, peers=options.peers)
    unknown = {*options.only} - {one.name for one in contenders} - {*_OTHERS}
    if unknown:
        raise RuntimeError(f"--only: unknown: {', '.join(sorted(unknown))}")
    contenders = [one for one in contenders if not options.only or one.name in options.only]
    if contenders:
        closed_loop.wrk()  # fail here if it is missing, not once in each contender
    table: list[Row] = []
    for work in workload.prepare(options.models) if contenders else []:
        table += _or_failure("in process", work.name, partial(_rounds, contenders, work, plan, services))
    report.compare_with_naive(table)
    for name, other in _OTHERS.items():
        if not options.only or name in options.only:
            _print(f"{name}: measuring")
            with servers.suspend_others(services, ()):
                table += _or_failure(name, "tiny", partial(other, plan))
    return table


def _rounds(contenders: Sequence[Contender], work: Workload, plan: Plan, services: Mapping[str, str]) -> list[Row]:
    """Measure every contender in each round; a failed contender is left out of later rounds.

    During a measurement only the real servers that the contender uses are running.
    """
    limits: list[dict[str, Any]] = []
    rounds: dict[str, list[Measurement]] = {contender.name: [] for contender in contenders}
    for number in range(plan.rounds):
        _print(f"{work.name}: round {number + 1} of {plan.rounds}: the model in process")
        with servers.suspend_others(services, ()):
            limits.append(limit(work))
        for contender in contenders:
            done = rounds[contender.name]
            if not any(one.error for one in done):
                with servers.suspend_others(services, contender.servers):
                    done.append(measure(contender, work, plan, limits[-1]))
                _print(f"{work.name}: round {number + 1} of {plan.rounds}: {_summary(done[-1])}")
    return report.limit_rows(work.name, limits) + [row for done in rounds.values() for row in report.rows(done)]


def _or_failure(name: str, model: str, measured: Callable[[], list[Row]]) -> list[Row]:
    """Return the measured rows, or one row with the error, so that the run continues."""
    try:
        return measured()
    except Exception as error:  # noqa: BLE001 no error may lose the rows of the others
        _print(f"{name} with {model}: FAILED: {reason(error)}")
        return [report.row(name, "ours", model, "failed", error=reason(error))]


def _summary(found: Measurement) -> str:
    loads = ", ".join(f"{load.requests / load.seconds:.0f}/s at {clients}" for clients, load in found.closed.items())
    memory = ", ".join(f"{role} {size:.0f}" for role, size in found.memory_mb.items())
    cpu = ", ".join(f"{role} {used:.2f}" for role, used in next(reversed(found.cpu_ms.values()), {}).items())
    failure = f"; FAILED: {found.error}" if found.error else ""
    return f"{found.contender}: {loads}; up in {found.start_s or 0:.1f} s; CPU ms: {cpu}; MB: {memory}{failure}"


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # like Ctrl-C: contenders are ended, suspended servers are resumed
    sys.exit(main())
