"""The store in a process whose threads gevent has made greenlets, as in the API: it puts and fails as elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.services


def run(repository: Path, script: str, **arguments: Any) -> str:
    """Return the script's output; gevent has patched its process."""
    head = "from gevent import monkey; monkey.patch_all()\nimport json, sys\narguments = json.loads(sys.argv[1])\n"
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", head + textwrap.dedent(script), json.dumps(arguments)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_put_is_there_with_its_type_and_metadata(repository: Path, services_env: dict[str, str], own_name: str) -> None:
    script = """
        import gevent.pool
        from inference.settings.schema import S3Settings
        from inference.storage.s3 import S3ObjectStore

        store = S3ObjectStore(S3Settings(**arguments["minio"]), arguments["bucket"], connections=4)
        sizes = (0, 1, 3_000, 150_000, 6_000_000) * 4
        images = {f"uploads/{number}": bytes([number]) * size for number, size in enumerate(sizes)}
        put = lambda key: store.put(key, images[key], content_type="image/png", metadata={"request-id": "mine"})
        gevent.pool.Pool(20).map(put, images)
        assert all(store.get(key) == image for key, image in images.items())
        found = store._client.stat_object(arguments["bucket"], "uploads/3")
        print(found.content_type, found.metadata["x-amz-meta-request-id"])
    """
    assert run(repository, script, minio=settings(services_env), bucket=own_name) == "image/png mine\n"


def test_a_server_that_is_not_there_or_refuses_is_unavailable(
    repository: Path, services_env: dict[str, str], own_name: str
) -> None:
    script = """
        from inference.errors import ServiceUnavailable
        from inference.settings.schema import S3Settings
        from inference.storage.s3 import S3ObjectStore

        unsigned = {"access_key": "", "secret_key": ""}
        for changes in ({"endpoint": "127.0.0.1:9"}, {"secret_key": "another one"}, unsigned):
            store = S3ObjectStore(S3Settings(**(arguments["minio"] | changes)), arguments["bucket"])
            try:
                store.put("uploads/1", b"bytes")
            except ServiceUnavailable as error:
                print("unavailable")
    """
    assert run(repository, script, minio=settings(services_env), bucket=own_name) == "unavailable\n" * 3


def test_a_connection_that_broke_is_made_again(repository: Path, services_env: dict[str, str], own_name: str) -> None:
    """A restarted server: the connections in the pool are closed at the other end."""
    script = """
        from inference.settings.schema import S3Settings
        from inference.storage.s3 import S3ObjectStore

        sys.path.insert(0, "tests")
        from support.tcp_proxy import TcpProxy

        proxy = TcpProxy(arguments["minio"]["endpoint"].removeprefix("http://"))
        store = S3ObjectStore(S3Settings(**(arguments["minio"] | {"endpoint": proxy.address})), arguments["bucket"])
        store.put("uploads/1", b"one")
        proxy.cut()
        proxy.mend()
        store.put("uploads/2", b"two")
        print(store.get("uploads/2"))
    """
    assert run(repository, script, minio=settings(services_env), bucket=own_name) == "b'two'\n"


def test_what_a_busy_server_turned_down_is_put_again(repository: Path, services_env: dict[str, str], own_name: str) -> None:
    script = """
        from inference.settings.schema import S3Settings
        from inference.storage.s3 import S3ObjectStore

        sys.path.insert(0, "tests")
        from support.tcp_proxy import TcpProxy

        answers = []

        def first_is_busy(chunk):
            answers.append(chunk)
            return chunk.replace(b" 200 OK", b" 503 Slow Down") if len(answers) == 1 else chunk

        direct = S3ObjectStore(S3Settings(**arguments["minio"]), arguments["bucket"])
        direct.put("uploads/1", b"one")
        proxy = TcpProxy(arguments["minio"]["endpoint"].removeprefix("http://"), first_is_busy)
        store = S3ObjectStore(S3Settings(**(arguments["minio"] | {"endpoint": proxy.address})), arguments["bucket"])
        store.put("uploads/1", b"another")
        print(len(answers), direct.get("uploads/1"))
    """
    assert run(repository, script, minio=settings(services_env), bucket=own_name) == "2 b'another'\n"


def test_a_server_that_hangs_is_not_asked_again(repository: Path, services_env: dict[str, str], own_name: str) -> None:
    """Waiting callers get the error after one timeout."""
    script = """
        import socket
        from inference.errors import ServiceUnavailable
        from inference.settings.schema import S3Settings
        from inference.storage.s3 import S3ObjectStore

        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            changes = {"endpoint": address, "read_timeout_s": 0.2}
            store = S3ObjectStore(S3Settings(**(arguments["minio"] | changes)), arguments["bucket"])
            try:
                store.put("uploads/1", b"bytes")
            except ServiceUnavailable as error:
                print("unavailable")
            server.settimeout(0.1)
            server.accept()[0].close()
            try:
                server.accept()
            except TimeoutError:
                print("asked once")
    """
    assert run(repository, script, minio=settings(services_env), bucket=own_name) == "unavailable\nasked once\n"


def settings(services_env: dict[str, str]) -> dict[str, str]:
    return {
        "endpoint": services_env["MINIO_ENDPOINT"],
        "access_key": services_env["MINIO_ACCESS_KEY"],
        "secret_key": services_env["MINIO_SECRET_KEY"],
    }
