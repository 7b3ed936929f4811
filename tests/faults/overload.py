"""The overload table: more requests than the service can do, and the ends of the accepted ones.

`PYTHONPATH=.:tests python -m faults.overload` measures all of it in about half an hour and prints the table of
docs/overload.md; `--quick` gives shorter loads, `--only` some of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import requests
import yaml
from faults.offered import (
    Body,
    Event,
    Figures,
    body_of,
    overload,
    photo_body,
    possible_per_s,
    running,
    sustainable,
    without_refusals,
)
from support.service import ROOT, Service

DEADLINES_S = (2, 5, 30)
FACTORS = (2, 3)
#: Seconds for which the rate without refusals is measured before and after a load.
_REFERENCE_S = 12.0
#: Seconds of a load that changes its model twice: a change takes 5 to 50 s.
_SWAP_S = 100.0

#: A model of 8x8 images that takes as long as `layers` convolutions at 64x64 do.
_MAKE_HEAVY = """
import sys
import keras
from keras import layers

_, path, count, seed = sys.argv
keras.utils.set_random_seed(int(seed))
keras.Sequential([
    keras.Input((8, 8, 1)), layers.UpSampling2D(8), layers.Conv2D(16, 3, activation="relu", padding="same"),
    *(layers.Conv2D(16, 3, activation="relu", padding="same") for _ in range(int(count))),
    layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax"),
]).save(path)
"""
_HEAVY_DESCRIPTION = {"name": "heavy", "file": "model.keras", "input": {"shape": [8, 8, 1], "dtype": "float32"}}


@contextmanager
def second_worker(service: Service, pauses_s: Sequence[float]) -> Iterator[list[Event]]:
    """Events after such pauses: a worker comes with the first, and goes as SIGTERM lets it with the second."""
    started: list[subprocess.Popen[bytes]] = []

    def toggle() -> None:
        if started:
            started[0].terminate()
            return
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-n", "second@%h", "--loglevel", "WARNING"]
        with service.log_file.open("ab") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=service.environment, stdout=log, stderr=log))

    yield [(pause_s, toggle) for pause_s in pauses_s]
    for process in started:
        process.terminate()
        process.wait(60)


def heavy_body(folder: Path) -> Body:
    metadata = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})
    return body_of(folder, {"metadata": metadata}, "image", np.zeros((8, 8, 1), "<f4").tobytes())


def make_heavy(folder: Path, *, layers: int, seed: int = 0) -> Path:
    """The folder of a model named `heavy` that takes longer the more layers it has."""
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(_HEAVY_DESCRIPTION), encoding="utf-8")
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _MAKE_HEAVY, str(folder / "model.keras"), str(layers), str(seed)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


def change_weights(service: Service, folder: Path) -> None:
    """Serve the model `heavy` with the file of that folder; raises where the service refuses."""
    weights = str(folder / "model.keras")
    fields = {"command": "load_new_weights", "local_file": "true", "model_id": "heavy", "weights_url": weights}
    answer = requests.post(f"{service.url}/inference_service_controller", data=fields, timeout=120)
    answer.raise_for_status()


# --- the table

_HEAD = (
    "load",
    "deadline s",
    "offered/s",
    "accepted",
    "met their deadline",
    "expired",
    "goodput/s",
    "÷ without refusals",
    "refusal p99 ms",
    "÷ live p99",
    "first return accepted",
    "Retry-After median s",
    "generator, of all cores",
)


def _row(name: str, found: Figures, possible: float) -> str:
    cells = (
        name,
        f"{found.deadline_s:g}",
        f"{found.rate_per_s:.0f}",
        f"{found.accepted}",
        f"{100 * found.met_share:.1f} %",
        f"{found.expired}",
        f"{found.goodput_per_s:.1f}",
        f"{found.goodput_per_s / possible:.2f}",
        f"{found.refusal_p99_ms:.0f}",
        f"{found.refusal_p99_ms / max(0.1, found.live_p99_ms):.1f}",
        f"{found.returned_accepted} of {found.returned}" if found.returned else "",
        f"{found.retry_after_median_s:g}",
        f"{100 * found.generator_share:.0f} %",
    )
    failed = f" ({found.errors} errors)" if found.errors else ""
    return f"| {' | '.join(cells)} |{failed}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _seconds(deadline_s: float, *, quick: bool) -> float:
    """Long enough that a queue as long as the deadline allows is full for most of the time."""
    return (12.0 if quick else 20.0) + (0.5 if quick else 0.8) * deadline_s


def _steady(folder: Path, *, quick: bool) -> None:
    body = photo_body(folder)
    with running({}) as service:
        rate = sustainable(service, body)
        _print(f"default model, sustainable: {rate:.1f} requests a second")
        before = without_refusals(service, body, rate_per_s=rate, seconds=_REFERENCE_S)
        for deadline_s in DEADLINES_S:
            for factor in FACTORS:
                seconds = _seconds(deadline_s, quick=quick)
                found = overload(service, body, rate_per_s=factor * rate, seconds=seconds, deadline_s=deadline_s)
                after = without_refusals(service, body, rate_per_s=rate, seconds=_REFERENCE_S)
                _print(_row(f"{factor}x", found, possible_per_s(found, [before, after])))  # a machine's speed drifts
                before = after
        _print(f"sustainable afterwards: {sustainable(service, body):.1f} requests a second")


def _workers(folder: Path, *, quick: bool) -> None:
    """A second worker comes, and goes; it takes the cores of the first, so the same without refusals is what can be done."""
    body = photo_body(folder)
    with running({}) as service:
        rate = sustainable(service, body)
        for deadline_s in DEADLINES_S:
            seconds = 20 + _seconds(deadline_s, quick=quick)
            pauses_s = (4.0, seconds - 14 - (0.3 * deadline_s))
            with second_worker(service, pauses_s) as events:
                before = without_refusals(service, body, rate_per_s=rate, seconds=seconds, events=events)
            with second_worker(service, pauses_s) as events:
                found = overload(service, body, rate_per_s=2 * rate, seconds=seconds, deadline_s=deadline_s, events=events)
            with second_worker(service, pauses_s) as events:
                after = without_refusals(service, body, rate_per_s=rate, seconds=seconds, events=events)
            _print(_row("2x, a second worker comes and goes", found, possible_per_s(found, [before, after])))


def _swap(folder: Path, *, quick: bool) -> None:
    """Another version of the model takes three times as long, then the first again."""
    quicker, slower = make_heavy(folder / "quick", layers=50), make_heavy(folder / "slow", layers=150, seed=1)
    settings = {"models": [str(quicker)], "model_files": {"allowed_folders": [str(folder)]}}
    body = heavy_body(folder)
    with running(settings) as service:
        rate = sustainable(service, body)
        seconds = 0.6 * _SWAP_S if quick else _SWAP_S
        events = [(4.0, partial(change_weights, service, slower)), (0.12 * seconds, partial(change_weights, service, quicker))]
        before = without_refusals(service, body, rate_per_s=rate, seconds=seconds, events=events)
        for deadline_s in DEADLINES_S[:2]:
            found = overload(service, body, rate_per_s=2 * rate, seconds=seconds, deadline_s=deadline_s, events=events)
            after = without_refusals(service, body, rate_per_s=rate, seconds=seconds, events=events)
            _print(_row("2x, the model is changed twice", found, possible_per_s(found, [before, after])))
            for name, one in (("before", before), ("load", found), ("after", after)):
                _print(f"{name}: {', '.join(f'{part.seconds:.1f} s {part.goodput_per_s:.0f}/s' for part in one.phases)}")
            before = after


def _polite(folder: Path, *, quick: bool) -> None:
    """A burst whose clients wait as `Retry-After` tells them."""
    body = photo_body(folder)
    with running({}) as service:
        rate = sustainable(service, body)
        for deadline_s in DEADLINES_S[:2]:
            seconds = 6.0 if quick else 10.0
            found = overload(service, body, rate_per_s=2 * rate, seconds=seconds, deadline_s=deadline_s, polite=True)
            _print(_row("2x, clients that wait and come again", found, rate))


_PARTS = {"steady": _steady, "polite": _polite, "workers": _workers, "swap": _swap}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter loads")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS))
    options = parser.parse_args()
    _print(f"| {' | '.join(_HEAD)} |\n|{' --- |' * len(_HEAD)}")
    with ExitStack() as stack:
        for name in options.only:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overload-")))
            _PARTS[name](folder, quick=options.quick)


if __name__ == "__main__":
    main()
