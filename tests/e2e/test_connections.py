"""Connections of a running API process: how long they live, stopping, and a process without files."""

from __future__ import annotations

import contextlib
import itertools
import re
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.api_process import GET, LAST_GET, ApiProcess, get
from support.client import wait_until

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets limits of processes")]

MakeApi = Callable[..., ApiProcess]
FORM = b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


class TestKeepAlive:
    def test_an_idle_connection_outlives_the_old_five_seconds_and_a_slow_head_does_not_last(self, api: ApiProcess) -> None:
        with api.connect() as idle, api.connect() as fresh, api.connect() as slow:
            assert idle.ask(GET).headers["connection"] == "keep-alive"
            slow.send(b"GET /hea")
            time.sleep(6.5)
            assert idle.ask(GET).status == 200
            assert fresh.ask(GET).status == 200
            late = slow.answer()
            assert (late.status, late.document["code"], late.headers["connection"]) == (408, "request_timeout", "close")

    def test_keepalive_s_is_honoured(self, make_api: MakeApi) -> None:
        api = make_api(keepalive_s=1.5)
        with api.connect() as connection:
            assert connection.ask(GET).status == 200
            time.sleep(0.5)
            assert connection.ask(GET).status == 200
            assert connection.is_closed()

    def test_the_longest_idle_connection_makes_room(self, make_api: MakeApi) -> None:
        api = make_api(max_connections=3)
        with contextlib.ExitStack() as stack:
            first, second = [stack.enter_context(api.connect()) for _ in range(2)]
            assert [connection.ask(GET).status for connection in (first, second)] == [200, 200]
            time.sleep(1.1)
            third, fourth = [stack.enter_context(api.connect()) for _ in range(2)]
            assert [connection.ask(GET).status for connection in (third, fourth)] == [200, 200]
            assert first.is_closed()
            assert fourth.ask(GET).status == 200


def ask_until_refused(api: ApiProcess, failures: list[Exception]) -> None:
    """A connection for each request, until nobody listens; what fails otherwise is a failure."""
    while True:
        try:
            connection = api.connect()
        except ConnectionRefusedError:
            return
        except OSError as error:
            failures.append(error)
            continue
        with connection:
            try:
                assert connection.ask(GET).status == 200
            except Exception as error:  # noqa: BLE001 the test tells
                failures.append(error)


class TestStopping:
    def test_idle_connections_do_not_delay_it_and_requests_are_answered(self, make_api: MakeApi) -> None:
        api = make_api()
        with api.connect() as idle, api.connect() as unused, api.connect() as waiting:
            assert idle.ask(GET).status == 200
            body = (
                b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"shape":"8,8,1","dtype":"uint8"}\r\n'
                b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"a" * 64 + b"\r\n--b--\r\n"
            )
            task = idle.ask(FORM + b"Prefer: respond-async\r\nContent-Length: %d\r\n\r\n" % len(body) + body).document
            waiting.send(get(target=f"/tasks/{task['task_id']}?wait=3".encode()))
            time.sleep(0.2)
            api.stop()
            answer = waiting.answer()
            assert (answer.status, answer.document["status"]) == (200, "queued")
            assert idle.is_closed()
            assert unused.is_closed()
        assert "Traceback" not in api.log

    def test_connections_that_wait_to_be_accepted_are_served(self, make_api: MakeApi) -> None:
        api = make_api()
        worker = api.worker
        with contextlib.ExitStack() as stack:
            worker.suspend()
            waiting = [stack.enter_context(api.connect()) for _ in range(300)]
            for connection in waiting:
                connection.send(GET)
            api.process.terminate()
            time.sleep(1.5)  # the worker is told within a second
            worker.resume()
            answers = [connection.answer() for connection in waiting]
        assert [answer.status for answer in answers] == [200] * 300
        assert api.process.wait(20) == 0

    def test_it_serves_on_for_a_while_and_says_that_it_is_not_ready(self, make_api: MakeApi) -> None:
        api = make_api(shutdown_delay_s=3)
        api.process.terminate()

        def says_that_it_stops() -> bool:
            with api.connect() as connection:
                answer = connection.ask(get(target=b"/health/ready"))
                if answer.headers["connection"] != "close":  # the signal may have come after the request
                    return False
                assert (answer.status, answer.document["checks"]) == (503, {"process": "stopping"})
                return connection.is_closed()

        wait_until(says_that_it_stops, timeout_s=3, what="the process is told that it stops")
        with api.connect() as connection:
            assert connection.ask(GET).status == 200
        assert api.process.wait(10) == 0

    @pytest.mark.parametrize("workers", [1, 2])
    def test_no_connection_is_reset_whenever_it_comes(self, make_api: MakeApi, workers: int) -> None:
        api = make_api(workers=workers)
        failures: list[Exception] = []
        served = [threading.Thread(target=ask_until_refused, args=(api, failures)) for _ in range(8)]
        for thread in served:
            thread.start()
        time.sleep(0.5)
        api.process.terminate()
        for thread in served:
            thread.join(30)
        assert failures == []
        assert api.process.wait(10) == 0

    def test_nor_where_sigterm_is_sent_to_all_of_its_processes(self, make_api: MakeApi) -> None:
        api = make_api(workers=2, shutdown_delay_s=3)
        failures: list[Exception] = []
        served = [threading.Thread(target=ask_until_refused, args=(api, failures)) for _ in range(8)]
        for thread in served:
            thread.start()
        for process in (*psutil.Process(api.process.pid).children(recursive=True), api.process):
            process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with api.connect() as late:
            assert late.ask(GET).status == 200
        for thread in served:
            thread.join(30)
        assert failures == []
        assert api.process.wait(10) == 0

    def test_idle_connections_alone_are_closed_at_once(self, make_api: MakeApi) -> None:
        api = make_api(drain_timeout_s=600)
        with api.connect() as idle:
            assert idle.ask(GET).status == 200
            api.stop()


def next_descriptor(process: psutil.Process) -> int:
    """Find the number of the next file that a process opens: the lowest free one, once no file of its start comes and goes."""
    seen: deque[int] = deque(maxlen=20)

    def is_steady() -> bool:
        used = {int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir()}
        seen.append(next(number for number in itertools.count() if number not in used))
        return len(seen) == seen.maxlen and len(set(seen)) == 1

    wait_until(is_steady, timeout_s=60, what="files neither come nor go")
    return seen[0]


class TestOpenFiles:
    def test_a_process_that_may_open_too_few_says_so_at_its_start(self, make_api: MakeApi) -> None:
        api = make_api(limit=220)
        assert re.search(
            r"WARNING.*api\.max_connections is 10000, .* 220 open files \(ulimit -n\): it takes 110 connections", api.log
        )
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(api.connect()) for _ in range(300)]
            for connection in connections:
                connection.send(GET)
            assert connections[-1].answer().status == 200
        assert "Traceback" not in api.log

    def test_one_that_has_none_left_says_it_once_waits_and_recovers(self, make_api: MakeApi) -> None:
        api = make_api()
        worker = api.worker
        with contextlib.ExitStack() as stack:
            asking = stack.enter_context(api.connect())
            assert asking.ask(GET).status == 200
            limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (next_descriptor(worker), limits[1]))
            busy = stack.enter_context(api.connect())  # the idle one makes room for it
            busy.send(b"GET /hea")
            assert asking.is_closed()
            waiting = [stack.enter_context(api.connect()) for _ in range(5)]
            for connection in waiting:
                connection.send(LAST_GET)
            spent_s = worker.cpu_times().user
            time.sleep(2)
            assert worker.cpu_times().user - spent_s < 0.5
            busy.socket.close()
            assert [connection.answer().status for connection in waiting] == [200] * 5
        assert api.log.count("Too many open files") == 1
        assert "Traceback" not in api.log
