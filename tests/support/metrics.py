"""Values of metrics, from their text."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inference.metrics.registry import INSTRUMENTS

#: Values by name and labels, a pair for each, in the order of the labels' names.
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Metrics:
    """The samples of one answer of /metrics."""

    def __init__(self, text: str) -> None:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        self._values: Values = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
        assert len(self._values) == len(samples), "a metric is there twice"

    def value(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 if it is missing."""
        return self._values.get((f"inference_{name}", tuple(sorted(labels.items()))), 0.0)

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of each time series of a metric."""
        return [dict(labels) for found, labels in self._values if found == f"inference_{name}"]


class Growth:
    """Growth of the instruments of this process: all tests of a run share them."""

    def __init__(self) -> None:
        self._before = _now()

    def of(self, name: str, **labels: str) -> float:
        """The growth of a metric since this was made."""
        return _now().value(name, **labels) - self._before.value(name, **labels)


def _now() -> Metrics:
    return Metrics(generate_latest(INSTRUMENTS).decode())
