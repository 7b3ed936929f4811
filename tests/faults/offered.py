"""Loads of more requests than a service can do, and the ends of the accepted ones.

The service is started as a user starts it. The generator (`bench.offered_load`) shares the machine's cores with it; the figures
say how much of them the generator took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
import urllib3
from support.service import ROOT, Service

from bench import closed_loop
from bench.contenders import Request
from bench.offered_load import Offered, Sent

PHOTO = ROOT / "samples" / "chelsea.jpg"
_CLIENTS = 64
#: A load counts from here on, when the first batches have run.
_FROM_S = 2.0
_SETTLE_S = 1.0
#: A deadline so long that nothing is refused, seconds, and the rate that is offered then ÷ the rate that can be done.
_NO_REFUSAL_S, _MORE = 240, 1.15

#: Event during a load: seconds after its start or the end of the previous event, and the call.
Event = tuple[float, Callable[[], object]]


@dataclass(frozen=True)
class Phase:
    """Part of a load between the begins and ends of its events."""

    seconds: float
    #: accepted, answered within the deadline, and answered in this phase
    met: int

    @property
    def goodput_per_s(self) -> float:
        return self.met / self.seconds


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
    #: parts of the load: an event ends one with its begin and another with its end
    phases: tuple[Phase, ...]
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

    @property
    def goodput_per_s(self) -> float:
        """Requests a second that were answered within their deadline while the load lasted."""
        return possible_per_s(self, [self])


def possible_per_s(found: Figures, references: Sequence[Figures]) -> float:
    """Requests a second that could be done in the time of `found`: each of its phases at the rate that all references had in it.

    An event, as a change of the model, takes longer in one load than in another.
    """
    done = 0.0
    for number, phase in enumerate(found.phases):
        same = [reference.phases[number] for reference in references]
        done += phase.seconds * sum(one.met for one in same) / sum(one.seconds for one in same)
    return done / sum(phase.seconds for phase in found.phases)


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


def photo_body(folder: Path) -> Body:
    return body_of(folder, {"command": "predict"}, PHOTO.name, PHOTO.read_bytes())


def body_of(folder: Path, fields: dict[str, str], name: str, image: bytes) -> Body:
    parts = {**fields, "image": (name, image, "application/octet-stream")}
    data, content_type = urllib3.encode_multipart_formdata(parts, boundary="XBOUNDARYX")
    file = folder / "body"
    file.write_bytes(data)
    return Body(file, content_type)


def sustainable(service: Service, body: Body, *, seconds: float = 12.0) -> float:
    """Requests a second that are answered when more arrive, none is refused, and arrivals are those of the loads.

    A closed loop comes first and finds the rate to offer. Its own rate is higher by about a tenth: its clients send in groups,
    as many as a batch has answers, and a group takes less CPU time than requests that arrive one by one.
    """
    url = f"{service.url}/inference?deadline_s={_NO_REFUSAL_S}"
    load = closed_loop.run(Request(url, body.file, body.content_type), clients=_CLIENTS, seconds=seconds / 2)
    if load.errors:
        raise RuntimeError(f"{load.errors} of {load.requests} requests failed")
    return without_refusals(service, body, rate_per_s=load.requests / load.seconds, seconds=seconds).goodput_per_s


def without_refusals(service: Service, body: Body, *, rate_per_s: float, seconds: float, events: Sequence[Event] = ()) -> Figures:
    """Offer somewhat more than `rate_per_s`, with a deadline so long that none is refused."""
    found = overload(service, body, rate_per_s=_MORE * rate_per_s, seconds=seconds, deadline_s=_NO_REFUSAL_S, events=events)
    if found.met < found.offered:
        raise RuntimeError(f"only {found.met} of {found.offered} requests were answered with a result")
    return found


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
    """Offer `rate_per_s` for so long, all with the same deadline, while `events` happen."""
    url = f"{service.url}/inference?deadline_s={deadline_s:g}"
    command = [sys.executable, "-m", "bench.offered_load", url, str(body.file), body.content_type, str(rate_per_s), str(seconds)]
    command += ["polite"] if polite else []
    with ThreadPoolExecutor() as pool:
        happening = pool.submit(_happen, events)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        document = json.loads(done.stdout)
        bounds_s = [at_s - document["began_monotonic_s"] for at_s in happening.result()]
    time.sleep(_SETTLE_S)
    if any(not _FROM_S <= at_s < seconds for at_s in bounds_s):
        raise RuntimeError(f"an event began or ended outside of the load, {_FROM_S:g} to {seconds:g} s: {bounds_s}")
    bounds_s = [_FROM_S, *bounds_s, seconds]
    return figures_of(document, rate_per_s=rate_per_s, bounds_s=bounds_s, deadline_s=deadline_s)


def _happen(events: Sequence[Event]) -> list[float]:
    """Call one after the other. Returns begin and end of each, monotonic seconds."""
    found = []
    for pause_s, event in events:
        time.sleep(pause_s)
        found.append(time.monotonic())
        event()
        found.append(time.monotonic())
    return found


def _phases(answered_s: Sequence[float], bounds_s: Sequence[float]) -> tuple[Phase, ...]:
    counts, _ = np.histogram(answered_s, bounds_s)
    return tuple(Phase(float(seconds), int(met)) for seconds, met in zip(np.diff(bounds_s), counts, strict=True))


def figures_of(document: dict[str, Any], *, rate_per_s: float, bounds_s: Sequence[float], deadline_s: float) -> Figures:
    sent, probes = ([Sent(**one) for one in document[name]] for name in ("requests", "probes"))
    found = Offered(sent, probes, document["began_monotonic_s"], document["cpu_s"], document["took_s"])
    refused = [one for one in sent if one.status == requests.codes.too_many_requests]
    errors = [one for one in sent if one.status not in (200, 429, 504)]
    accepted = [one for one in sent if one.status in (200, 504)]
    met = [one for one in accepted if one.status == requests.codes.ok and one.latency_s <= deadline_s]
    came_again = [one for one in sent if one.tries == 1]
    return Figures(
        rate_per_s=rate_per_s,
        deadline_s=deadline_s,
        offered=len(sent),
        accepted=len(accepted),
        met=len(met),
        expired=sum(one.status == requests.codes.gateway_timeout for one in sent),
        phases=_phases([one.due_s + one.latency_s for one in met], bounds_s),
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
