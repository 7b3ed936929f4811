"""Both clients of client/ behind one face, so that each test of their common behaviour runs with both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from rohe_inference import AsyncClient, Client


class SyncCaller:
    """Calls methods of `Client`."""

    def __init__(self, url: str, **options: Any) -> None:
        self._http = httpx2.Client(verify=False)
        self._client = Client(url, http=self._http, **options)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        return getattr(self._client, method)(*args, **options)

    def collect(self, method: str, *args: Any, **options: Any) -> list[Any]:
        """Everything that an iterator yields."""
        return list(getattr(self._client, method)(*args, **options))

    def close(self) -> None:
        self._client.close()
        self._http.close()


class AsyncCaller:
    """Calls methods of `AsyncClient`, on an event loop of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._http = httpx2.AsyncClient(verify=False)
        self._client = AsyncClient(url, http=self._http, **options)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        return self._runner.run(getattr(self._client, method)(*args, **options))

    def collect(self, method: str, *args: Any, **options: Any) -> list[Any]:
        async def everything(iterator: AsyncIterator[Any]) -> list[Any]:
            return [one async for one in iterator]

        return self._runner.run(everything(getattr(self._client, method)(*args, **options)))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.run(self._http.aclose())
        self._runner.close()


Caller = SyncCaller | AsyncCaller
MakeCaller = Callable[..., Caller]
