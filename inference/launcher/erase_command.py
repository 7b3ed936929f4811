"""Command `server.py erase`: remove everything of tasks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from inference.errors import ConfigurationError
from inference.runtime.audit import audited_command, command_audit
from inference.settings import Settings
from inference.settings.installation import COMMAND

#: Tasks of one erasure.
_STEP = 500
_EXAMPLES = f"""examples:
  {COMMAND} erase 01a225dafe6371299dd0373615dc9f7a
  {COMMAND} erase --request-id photo-17               all tasks with this request id

Removes record, image, dead letter and messages at once, and has the relay remove the results from the sinks.
exit code: 0 erased, or ordered; 1 there is no such task, or a server does not answer
"""


def add_erase_command(commands: Any, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `erase` to the subparsers of `server.py`, and return its parser."""
    erase: argparse.ArgumentParser = commands.add_parser(
        "erase",
        parents=[shared],
        help="remove everything of tasks: record, image, results",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    erase.add_argument("task_ids", nargs="*", metavar="TASK_ID")
    erase.add_argument("--request-id", metavar="ID", help="erase all tasks with this request id")
    erase.add_argument("--owner", default="", metavar="NAME", help="only tasks of this owner; default: of all")
    return erase


def erase_tasks(options: argparse.Namespace, settings: Settings) -> int:
    """Erase the tasks that the command names; print the result, and return the exit code."""
    from inference.container import Services  # noqa: PLC0415 only what a command needs is imported

    if bool(options.task_ids) == bool(options.request_id):
        raise ConfigurationError(f"erase: give task ids, or --request-id ID; {COMMAND} erase --help shows examples")
    eraser = _Eraser(Services(settings), options.owner)
    with command_audit(settings.security.audit_file):
        return eraser.erase_request(options.request_id) if options.request_id else eraser.erase_ids(options.task_ids)


class _Eraser:
    """Erases tasks for an operator.

    Args:
        owner: only tasks of this owner; empty: of all.
    """

    def __init__(self, services: Any, owner: str) -> None:
        self._services = services
        self._owner = owner

    def erase_ids(self, task_ids: list[str]) -> int:
        found = []
        for task_id, record in zip(task_ids, self._services.store.get_many(task_ids), strict=True):
            if record is None or self._owner not in ("", record.owner):
                sys.stderr.write(f"there is no task {task_id}, or it ended too long ago\n")
            else:
                found.append(record)
        for start in range(0, len(found), _STEP):
            step = found[start : start + _STEP]
            self._erase(step, ", ".join(record.task_id for record in step))
        return 0 if len(found) == len(task_ids) else 1

    def erase_request(self, request_id: str) -> int:
        from inference.lifecycle.erasures import find_tasks  # noqa: PLC0415
        from inference.task_store import TaskFilter  # noqa: PLC0415

        has_more, count = True, 0
        while has_more:
            records, has_more = find_tasks(self._services.store, TaskFilter(request_id, owner=self._owner), limit=_STEP)
            count += len(records)
            if records:
                self._erase(records, f"tasks with the request id {request_id}")
        if not count:
            sys.stderr.write(f"there is no task with the request id {request_id}\n")
        return 0 if count else 1

    def _erase(self, records: list[Any], target: str) -> None:
        with audited_command("task.erase", target) as event:
            progress = self._services.erasures.erase(records)
            event |= {"tasks": progress.tasks, "erasure_id": progress.erasure_id}
        stores = ", ".join(f"{store}: {state}" for store, state in progress.stores.items())
        for record in records:
            sys.stdout.write(f"{record.task_id}  erased\n")
        sys.stderr.write(f"records: erased, {stores}\n")
        if not progress.is_done:
            sys.stderr.write("the relay does the rest as soon as the store answers\n")
