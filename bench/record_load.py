"""`python -m bench.record_load URL > bench/loads/NAME.csv`: the load of a running service, from its task records.

`GET /tasks` has every task that was accepted, images of batches and of plain Celery clients among them, until
`task_store.result_ttl_s` after its end. What was refused is not in it. With keys, one of the role `read` sees the tasks of all
owners: `--key-file`. `python -m bench.autoscaling --load FILE` replays the file.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import urllib3

from bench.load_files import write_load

_PAGE = 500


def read_acceptances(url: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Iterator[datetime]:
    """Yield the times at which tasks were accepted, newest first.

    Args:
        parameters: of `GET /tasks`.

    Raises:
        RuntimeError: the service refuses to say.
    """
    query = {"limit": str(_PAGE), **parameters}
    with urllib3.PoolManager(timeout=30) as http:
        while True:
            answer = http.request("GET", f"{url}/tasks", fields=query, headers=dict(headers))
            if answer.status != HTTPStatus.OK:
                raise RuntimeError(f"{url}/tasks: {answer.status} {answer.data[:500].decode(errors='replace')}")
            page = answer.json()
            yield from (datetime.fromisoformat(task["created_at"]) for task in page["tasks"])
            if "next_cursor" not in page:
                return
            query["cursor"] = page["next_cursor"]


def count_by_second(times: Iterable[datetime], since: datetime | None = None) -> tuple[datetime, list[int]]:
    """Return the first second, and the tasks of each second from it to the last.

    Args:
        since: the first second; default: that of the first task.

    Raises:
        ValueError: there is none.
    """
    counts = Counter(int(time.timestamp()) for time in times)
    if not counts:
        raise ValueError("no task was accepted in this time")
    first = min(counts) if since is None else int(since.timestamp())
    return datetime.fromtimestamp(first, UTC), [counts[second] for second in range(first, max(counts) + 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the load to standard output."""
    options = _parser().parse_args(arguments)
    given = {"model": options.model, "since": options.since and options.since.isoformat()}
    key = options.key_file.read_text(encoding="utf-8").strip() if options.key_file else ""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = options.url.rstrip("/")
    parameters = {name: value for name, value in given.items() if value}
    try:
        first, load = count_by_second(read_acceptances(url, parameters, headers), options.since)
    except (RuntimeError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    notes = [f"{sum(load)} tasks in {len(load)} s from {first:%Y-%m-%dT%H:%M:%SZ}", *options.note]
    write_load(sys.stdout, load, notes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.record_load", description="Record the load of a running service.")
    parser.add_argument("url", help="of the API")
    parser.add_argument("--model", help="tasks of this model alone")
    parser.add_argument(
        "--since", type=_time, metavar="TIME", help="first second (2026-01-31T12:00:00Z); default: the first task"
    )
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="with a key of the role read")
    parser.add_argument(
        "--note", action="append", default=[], metavar="TEXT", help="line at the top of the file; may be repeated"
    )
    return parser


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
