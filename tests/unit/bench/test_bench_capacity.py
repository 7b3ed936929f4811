"""Needs of a load follow from the measured CPU time, and docs/scaling.md says what the program says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import capacity, page, report
from bench.capacity import Assumptions, Costs, costs, installation

#: An image costs each process 10 ms; a process has 100 MB, a worker 1,000.
COST = Costs(10, 10, 30, 10, 10, 5, 5, 100, 1000, 100)
GIVEN = Assumptions(utilization=0.5, worker_cores=4, image_bytes=1000, record_bytes=2000, result_ttl_s=100, result_bytes=1000)
PER_HOUR = 3600


def test_processes_follow_from_the_cpu_time_an_image_takes() -> None:
    need = installation(100 * PER_HOUR, COST, GIVEN)

    assert need.images_per_s == 100
    # 100 images a second keep one core busy, which half of the time of two cores is
    assert (need.api_processes, need.relays, need.redis_servers) == (2, 2, 1 * 2)
    # 4 busy cores, of which a worker has 4, half of their time
    assert need.workers == 2
    # the object store and the sink are busy for half a core each
    assert need.cores == 2 + 2 * 4 + 2 + 2 + 2


def test_stores_follow_from_the_bytes() -> None:
    need = installation(1000 * PER_HOUR, COST, replace(GIVEN, retention_hours=10, partition_bytes_per_s=100_000))

    assert need.redis_gb == pytest.approx(1000 * 100 * 2000 / 1e9)
    assert need.object_store_mb_per_s == pytest.approx(1.0)
    assert need.object_store_gb == pytest.approx(36.0)
    assert need.kafka_partitions == 10
    assert need.memory_gb == pytest.approx((20 * 100 + 20 * 1000 + 20 * 100) / 1e3 + need.redis_gb)


def test_a_small_load_has_two_processes_of_each_kind_and_one_redis() -> None:
    need = installation(1, COST, GIVEN)

    assert (need.api_processes, need.workers, need.relays, need.kafka_partitions, need.redis_servers) == (2, 2, 2, 2, 1)


def test_a_run_without_the_row_is_named() -> None:
    with pytest.raises(ValueError, match="redis-minio-kafka with photo"):
        costs([], "photo")


def test_page_has_the_calculated_tables() -> None:
    table = report.read_json(page.RESULTS / "bench.json")
    machine = (page.RESULTS / "machine.txt").read_text(encoding="utf-8").strip()
    text = capacity.PAGE.read_text(encoding="utf-8")

    between = text.partition(capacity.BEGIN)[2].partition(capacity.END)[0]
    assert between.strip() == capacity.as_markdown(table, machine).strip()


def test_command_takes_other_constants(capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main(["1000000", "--predictor-ms", "1000", "--worker-cores", "10", "--utilization", "1"]) == 0

    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[2].split("|")]
    assert (cells[1], cells[4]) == ("1,000,000", "28")
