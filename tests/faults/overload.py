"""The overload table: more requests than the service can do, and the ends of the accepted ones.

`PYTHONPATH=.:tests python -m faults.overload` measures all of it in about a quarter of an hour and prints the table of
docs/overload.md; `--quick` gives shorter loads, `--only` some of the rows. The service is started as a user starts it; the
generator (`bench.offered_load`) and the service share the machine's cores, and the table says how much the generator took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import requests
import urllib3
import yaml
from support.service import ROOT, Service

from bench import closed_loop
from bench.contenders import Request
from bench.offered_load import Offered, Sent

PHOTO = ROOT / "samples" / "chelsea.jpg"
DEADLINES_S = (2, 5, 30)
FACTORS = (2, 3)
_CLIENTS = 64
#: A load counts from here on, when the first batches have run.
_FROM_S = 2.0
_SETTLE_S = 1.0
#: Seconds for which the rate without refusals is measured before and after a load.
_REFERENCE_S = 12.0
#: A deadline so long that nothing is refused, seconds, and the rate that is offered then ÷ the rate that can be done.
_NO_REFUSAL_S, _MORE = 240, 1.15

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


#: An event during a load: seconds after its begin, and the call.
Event = tuple[float, Callable[[], object]]


@dataclass(frozen=True)
class Body:
    """A request's body in a file, and its type."""

    file: Path
    content_type: str


@dataclass(frozen=True)
class Figures:
    """Figures of one load."""

    rate_per_s: float
    deadline_s: float
    offered: int
    accepted: int
    #: accepted, and answered with a result within the deadline
    met: int
    #: of `met`, answered while the load lasted, per second
    goodput_per_s: float
    refusal_p99_ms: float
    live_p99_ms: float
    #: ended by their deadline, or as they could not meet it
    expired: int
    #: of polite clients, that came again for the first time, and how many of them were accepted
    returned: int
    returned_accepted: int
    retry_after_median_s: float
    errors: int
    #: of all cores
    generator_share: float

    @property
    def met_share(self) -> float:
        return self.met / max(1, self.accepted)


@contextmanager
def running(settings: dict[str, Any]) -> Iterator[Service]:
    """A service with these settings and a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="overload-", ignore_cleanup_errors=True) as folder:
        service = Service(Path(folder), settings)
        try:
            service.start()
            yield service
        finally:
            service.end()


@contextmanager
def second_worker(service: Service) -> Iterator[Callable[[], None]]:
    """A worker that comes with the first call, and goes as SIGTERM lets it with the second."""
    started: list[subprocess.Popen[bytes]] = []

    def toggle() -> None:
        if started:
            started[0].terminate()
            return
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-n", "second@%h", "--loglevel", "WARNING"]
        with service.log_file.open("ab") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=service.environment, stdout=log, stderr=log))

    yield toggle
    for process in started:
        process.terminate()
        process.wait(60)


def photo_body(folder: Path) -> Body:
    return _body(folder, {"command": "predict"}, PHOTO.name, PHOTO.read_bytes())


def heavy_body(folder: Path) -> Body:
    metadata = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})
    return _body(folder, {"metadata": metadata}, "image", np.zeros((8, 8, 1), "<f4").tobytes())


def _body(folder: Path, fields: dict[str, str], name: str, image: bytes) -> Body:
    parts = {**fields, "image": (name, image, "application/octet-stream")}
    data, content_type = urllib3.encode_multipart_formdata(parts, boundary="XBOUNDARYX")
    file = folder / "body"
    file.write_bytes(data)
    return Body(file, content_type)


def make_heavy(folder: Path, *, layers: int, seed: int = 0) -> Path:
    """The folder of a model named `heavy` that takes longer the more layers it has."""
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(_HEAVY_DESCRIPTION), encoding="utf-8")
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _MAKE_HEAVY, str(folder / "model.keras"), str(layers), str(seed)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


def sustainable(service: Service, body: Body, *, seconds: float = 12.0) -> float:
    """Requests a second that are answered when more arrive, none is refused, and arrivals are those of the loads.

    A closed loop comes first and finds the rate to offer. Its own rate is higher by about a tenth: its clients send in groups,
    as many as a batch has answers, and a group takes less CPU time than requests that arrive one by one.
    """
    url = f"{service.url}/inference?deadline_s={_NO_REFUSAL_S}"
    load = closed_loop.run(Request(url, body.file, body.content_type), clients=_CLIENTS, seconds=seconds / 2)
    if load.errors:
        raise RuntimeError(f"{load.errors} of {load.requests} requests failed")
    return without_refusals(service, body, rate_per_s=load.requests / load.seconds, seconds=seconds)


def without_refusals(service: Service, body: Body, *, rate_per_s: float, seconds: float, events: Sequence[Event] = ()) -> float:
    """Requests a second that are answered of somewhat more than `rate_per_s`, with a deadline so long that none is refused."""
    found = overload(service, body, rate_per_s=_MORE * rate_per_s, seconds=seconds, deadline_s=_NO_REFUSAL_S, events=events)
    if found.met < found.offered:
        raise RuntimeError(f"only {found.met} of {found.offered} requests were answered with a result")
    return found.goodput_per_s


def overload(
    service: Service,
    body: Body,
    *,
    rate_per_s: float,
    seconds: float,
    deadline_s: float,
    events: Sequence[Event] = (),
    polite: bool = False,
) -> Figures:
    """Offer `rate_per_s` for so long, all with the same deadline; each of `events` happens so many seconds after its begin."""
    url = f"{service.url}/inference?deadline_s={deadline_s:g}"
    command = [sys.executable, "-m", "bench.offered_load", url, str(body.file), body.content_type, str(rate_per_s), str(seconds)]
    command += ["polite"] if polite else []
    happening = threading.Thread(target=_happen, args=(events,))
    happening.start()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    happening.join()
    time.sleep(_SETTLE_S)
    return _figures(json.loads(done.stdout), rate_per_s=rate_per_s, seconds=seconds, deadline_s=deadline_s)


def _happen(events: Sequence[Event]) -> None:
    """One after the other: one that takes longer delays the next."""
    began = time.monotonic()
    for at_s, event in events:
        time.sleep(max(0.0, began + at_s - time.monotonic()))
        event()


def _figures(document: dict[str, Any], *, rate_per_s: float, seconds: float, deadline_s: float) -> Figures:
    sent, probes = ([Sent(**one) for one in document[name]] for name in ("requests", "probes"))
    found = Offered(sent, probes, document["cpu_s"], document["took_s"])
    refused = [one for one in sent if one.status == requests.codes.too_many_requests]
    errors = [one for one in sent if one.status not in (200, 429, 504)]
    accepted = [one for one in sent if one.status in (200, 504)]
    met = [one for one in accepted if one.status == requests.codes.ok and one.latency_s <= deadline_s]
    counted = [one for one in met if _FROM_S <= one.due_s + one.latency_s <= seconds]
    came_again = [one for one in sent if one.tries == 1]
    return Figures(
        rate_per_s=rate_per_s,
        deadline_s=deadline_s,
        offered=len(sent),
        accepted=len(accepted),
        met=len(met),
        expired=sum(one.status == requests.codes.gateway_timeout for one in sent),
        goodput_per_s=len(counted) / (seconds - _FROM_S),
        refusal_p99_ms=_p99_ms(refused),
        live_p99_ms=_p99_ms(probes),
        returned=len(came_again),
        returned_accepted=sum(one.status != requests.codes.too_many_requests for one in came_again),
        retry_after_median_s=float(np.median([one.retry_after_s for one in refused] or [0.0])),
        errors=len(errors),
        generator_share=found.cpu_s / found.took_s / (os.cpu_count() or 1),
    )


def _p99_ms(sent: Sequence[Sent]) -> float:
    return float(np.percentile([one.latency_s for one in sent] or [0.0], 99) * 1000)


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


def _row(name: str, found: Figures, possible_per_s: float) -> str:
    cells = (
        name,
        f"{found.deadline_s:g}",
        f"{found.rate_per_s:.0f}",
        f"{found.accepted}",
        f"{100 * found.met_share:.1f} %",
        f"{found.expired}",
        f"{found.goodput_per_s:.1f}",
        f"{found.goodput_per_s / possible_per_s:.2f}",
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
                _print(_row(f"{factor}x", found, (before + after) / 2))  # a machine's speed drifts
                before = after
        _print(f"sustainable afterwards: {sustainable(service, body):.1f} requests a second")


def _workers(folder: Path, *, quick: bool) -> None:
    """A second worker comes, and goes; it takes the cores of the first, so the same without refusals is what can be done."""
    body = photo_body(folder)
    with running({}) as service:
        rate = sustainable(service, body)
        for deadline_s in DEADLINES_S:
            seconds = 20 + _seconds(deadline_s, quick=quick)
            at_s = (4.0, seconds - 10 - (0.3 * deadline_s))
            with second_worker(service) as toggle:
                events = [(at, toggle) for at in at_s]
                possible = without_refusals(service, body, rate_per_s=rate, seconds=seconds, events=events)
            with second_worker(service) as toggle:
                events = [(at, toggle) for at in at_s]
                found = overload(service, body, rate_per_s=2 * rate, seconds=seconds, deadline_s=deadline_s, events=events)
                _print(_row("2x, a second worker comes and goes", found, possible))


def _swap(folder: Path, *, quick: bool) -> None:
    """Another version of the model takes three times as long, then the first again."""
    quicker, slower = make_heavy(folder / "quick", layers=50), make_heavy(folder / "slow", layers=150, seed=1)
    settings = {"models": [str(quicker)], "model_files": {"allowed_folders": [str(folder)]}}
    body = heavy_body(folder)
    with running(settings) as service:
        rate = sustainable(service, body)
        for deadline_s in DEADLINES_S[:2]:
            seconds = 20 + _seconds(deadline_s, quick=quick)
            events = [
                (2.0, partial(change_weights, service, slower)),
                (seconds / 2, partial(change_weights, service, quicker)),
            ]
            possible = without_refusals(service, body, rate_per_s=rate, seconds=seconds, events=events)
            found = overload(service, body, rate_per_s=2 * rate, seconds=seconds, deadline_s=deadline_s, events=events)
            _print(_row("2x, the model is changed twice", found, possible))


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
