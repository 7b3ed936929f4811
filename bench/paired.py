"""`python -m bench.paired`: what a change costs a request, measured in pairs on one machine.

Two services run side by side, and short loads alternate between them: `--base REVISION` compares this tree with that revision of
it, `--keys` a service with keys with one without, `--set KEY=VALUE` one with these settings with one without. Prints the ratios
of the requests a second and of the CPU time of a request, by part too: medians and quartiles of all pairs. On a machine that does
other things as well, the CPU time is the steadier figure. With `--runs FOLDER` the services write their data there; a folder in
memory keeps what the file system costs one service and not the other out of the figures. The exit code is 1 if the median of the
requests is below `--least`.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from bench import closed_loop, workload
from bench.contenders import Contender, Ours, Running
from bench.processes import cpu_ms_each
from bench.with_keys import OursWithKeys
from bench.workload import ROOT, WORK, Workload

_WARM_S = 5.0
#: Largest share of a load that may be refused: where the machine was busy for a moment.
_MAX_REFUSED = 0.01


@dataclass(frozen=True)
class Burst:
    """Figures of one load."""

    requests_per_s: float
    #: milliseconds a request, by part
    cpu_ms: Mapping[str, float]


#: The ratio of two figures by name, the second service's by the first's.
Ratios = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. The exit code is 1 if the ratio of the requests a second is below `--least`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    Contender.runs = options.runs.resolve()  # a revision runs in its own folder
    try:
        first, second = _contenders(options)
    except ValueError as error:
        parser.error(str(error))
    (work,) = workload.prepare([options.model])
    pairs = _measure(first, second, work, options)
    sys.stdout.write(as_table(pairs))
    return int(float(np.median([pair["requests a second"] for pair in pairs])) < options.least)


def ratios(first: Burst, second: Burst) -> Ratios:
    """Divide the figures of a pair; a part that one of the two did not use is left out."""
    both = {part for part in first.cpu_ms if first.cpu_ms[part] and second.cpu_ms.get(part)}
    found = {
        "requests a second": second.requests_per_s / first.requests_per_s,
        "CPU of a request": sum(second.cpu_ms.values()) / sum(first.cpu_ms.values()),
    }
    return found | {f"CPU of a request, {part}": second.cpu_ms[part] / first.cpu_ms[part] for part in sorted(both)}


def as_table(pairs: Sequence[Ratios]) -> str:
    """Return median and quartiles of each figure, a line each."""
    lines = [f"{'ratio':<28} median  quartiles"]
    for name in pairs[0]:
        low, median, high = np.percentile([pair[name] for pair in pairs if name in pair], (25, 50, 75))
        lines.append(f"{name:<28} {median:6.3f}  {low:.3f} to {high:.3f}")
    return "\n".join(lines) + "\n"


def settings_of(texts: Sequence[str]) -> dict[str, object]:
    """Read `a.b=VALUE` texts, with values in YAML, to nested settings. Raises ValueError."""
    found: dict[str, object] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: KEY=VALUE is expected")
        *sections, name = path.split(".")
        inner = found
        for section in sections:
            inner = inner.setdefault(section, {})  # type: ignore[assignment]
        inner[name] = yaml.safe_load(value)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.paired", description="Compare two services in alternating loads.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--base", metavar="REVISION", help="this tree ÷ that revision of it")
    which.add_argument("--keys", action="store_true", help="with a key for each request ÷ without keys")
    which.add_argument("--set", metavar="KEY=VALUE", nargs="+", help="with these settings ÷ without them")
    parser.add_argument("--model", default="tiny", choices=["tiny", "mobilenetv2", "photo"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of each load (default: 4)")
    parser.add_argument("--runs", type=Path, default=Contender.runs, metavar="FOLDER", help="folder for the services' data")
    parser.add_argument("--least", type=float, default=0.97, help="least ratio of the requests a second (default: 0.97)")
    return parser


def _contenders(options: argparse.Namespace) -> tuple[Ours, Ours]:
    """Return the two services. Raises ValueError."""
    if options.base:
        return Ours("base", {}, {}, tree=_tree_of(options.base)), Ours("this", {}, {})
    if options.keys:
        return Ours("without-keys", {}, {}), OursWithKeys("with-keys", {}, ("owner",))
    return Ours("without", {}, {}), Ours("with", {}, settings_of(options.set))


def _tree_of(revision: str) -> Path:
    """Return the folder with the files of a revision. Raises ValueError if there is none."""
    git = ["git", "-C", str(ROOT)]
    parse = [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    found = subprocess.run(parse, capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode:
        raise ValueError(f"--base {revision}: no such revision")
    commit = found.stdout.strip()
    folder = WORK / "trees" / commit
    if not folder.exists():
        archive = subprocess.run([*git, "archive", commit], capture_output=True, check=True)  # noqa: S603
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
    return folder


def _measure(first: Ours, second: Ours, work: Workload, options: argparse.Namespace) -> list[Ratios]:
    """Load both services in turns; the order alternates, so that neither gains by being the second."""
    with ExitStack() as stack:
        running = [stack.enter_context(service.run(work)) for service in (first, second)]
        for service in running:
            closed_loop.run(service.request, clients=options.clients, seconds=_WARM_S)
        pairs = []
        for number in range(options.pairs):
            bursts = {place: _burst(running[place], options.clients, options.seconds) for place in ((0, 1), (1, 0))[number % 2]}
            pairs.append(ratios(bursts[0], bursts[1]))
            sys.stdout.write(f"{number + 1:>3}: {pairs[-1]['requests a second']:.3f}\n")
            sys.stdout.flush()
    return pairs


def _burst(service: Running, clients: int, seconds: float) -> Burst:
    before = service.processes.cpu_s()
    load = closed_loop.run(service.request, clients=clients, seconds=seconds)
    answered = load.requests - load.errors
    if load.errors > _MAX_REFUSED * load.requests:
        raise RuntimeError(f"{load.errors} of {load.requests} requests were refused or failed")
    return Burst(answered / load.seconds, cpu_ms_each(before, service.processes.cpu_s(), answered))


if __name__ == "__main__":
    sys.exit(main())
