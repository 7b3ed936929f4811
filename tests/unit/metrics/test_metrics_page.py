"""docs/metrics.md and the metrics are the same, and Prometheus' own tool has nothing to say about them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import redis
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from support.certificates import make_certificates
from support.promtool import check_metrics

from inference.container import Services
from inference.metrics import api, relay, worker
from inference.metrics.process_figures import ProcessFigures
from inference.settings import Settings
from inference.status.service_metrics import ServiceMetrics

ROOT = Path(__file__).parents[3]
PARTS = {"API": api, "worker": worker, "relay": relay}


class Row(NamedTuple):
    """One metric of the page."""

    name: str
    kind: str
    labels: frozenset[str]
    part: str

    @property
    def family(self) -> str:
        """The name of the metric as Prometheus' client has it."""
        return self.name.removesuffix("_total")


def documented() -> list[Row]:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (\w+) \| .+ \|$", text, re.MULTILINE)
    return [Row(name, kind, frozenset(re.findall(r"`(\w+)`", labels)), part) for name, kind, labels, part in rows]


ROWS = documented()


def instruments(module: ModuleType) -> dict[str, MetricWrapperBase]:
    """The instruments of a part, by the name of their family."""
    found = [value for value in vars(module).values() if isinstance(value, MetricWrapperBase)]
    return {family.name: one for one in found for family in one.collect()}


@pytest.fixture
def common(tmp_path: Path, redis_url: str, redis_client: redis.Redis, key_prefix: str) -> Iterator[list[Collector]]:
    """Metrics that every part exposes, of a service that has all there is to see."""
    redis_client.hset(f"{key_prefix}:open-tasks", "someone", 1)
    certificates = make_certificates(tmp_path)
    sections: dict[str, Any] = {
        "models": (ROOT / "models/digits",),
        "broker": {"url": redis_url},
        "task_store": {"key_prefix": key_prefix},
        "s3": {"ca_file": certificates.authority, "secure": True},
    }
    services = Services(Settings(data_dir=tmp_path, **sections))
    yield [ServiceMetrics(services), ProcessFigures()]
    services.redis.close()


def families(collectors: list[Collector]) -> dict[str, Metric]:
    return {family.name: family for collector in collectors for family in collector.collect()}


@pytest.mark.parametrize("part", PARTS)
def test_each_instrument_has_a_row_and_each_row_an_instrument(part: str) -> None:
    found = instruments(PARTS[part])
    rows = {row.family: row for row in ROWS if row.part == part}
    assert found.keys() == rows.keys()
    for name, row in rows.items():
        (family,) = found[name].collect()
        assert family.type == row.kind, name


@pytest.mark.parametrize("row", [row for row in ROWS if row.part in PARTS and row.labels], ids=lambda row: row.name)
def test_instruments_have_the_labels_of_their_row(row: Row) -> None:
    instrument = instruments(PARTS[row.part])[row.family]
    instrument.labels(**dict.fromkeys(row.labels, "a test's"))  # it takes these labels, and no others
    instrument.remove(*["a test's"] * len(row.labels))


@pytest.mark.parametrize("row", [row for row in ROWS if row.part in PARTS and not row.labels], ids=lambda row: row.name)
def test_instruments_without_labels_have_a_value_from_the_start(row: Row) -> None:
    (family,) = instruments(PARTS[row.part])[row.family].collect()
    assert all(set(sample.labels) <= {"le"} for sample in family.samples)
    assert family.samples


def test_what_all_parts_expose_has_rows_with_its_labels(common: list[Collector]) -> None:
    found = families(common)
    rows = {row.family: row for row in ROWS if row.part == "all"}
    assert found.keys() == rows.keys()
    assert {name: family.type for name, family in found.items()} == {name: row.kind for name, row in rows.items()}
    without_values = {name for name, family in found.items() if not family.samples}
    assert without_values <= {"inference_task_store_memory_limit_bytes"}  # the server of the tests has no limit
    for name, row in rows.items():
        assert {frozenset(sample.labels) for sample in found[name].samples} <= {row.labels}, name


def test_every_row_is_of_a_part() -> None:
    assert {row.part for row in ROWS} == {*PARTS, "all"}
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("module", PARTS.values(), ids=PARTS)
def test_promtool_has_nothing_to_say(repository: Path, module: ModuleType) -> None:
    """A process of its own: this one has the instruments of all parts."""
    code = (
        f"import {module.__name__} as part\n"
        "from inference.metrics.exposition import exposition\n"
        "print(exposition().decode(), end='')"
    )
    text = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    assert instruments(module).keys() <= names
    others = {name for other in PARTS.values() if other is not module for name in instruments(other)}
    assert not others & names
    check_metrics(repository, text)


def test_promtool_has_nothing_to_say_of_the_whole_service(repository: Path, common: list[Collector]) -> None:
    text = b"".join(generate_latest(collector) for collector in common)  # type: ignore[arg-type] # it only collects
    check_metrics(repository, text)


def test_promtool_finds_faults(repository: Path) -> None:
    with pytest.raises(AssertionError):
        check_metrics(repository, b"# HELP a_count_total A.\n# TYPE a_count_total gauge\na_count_total 1\n")
