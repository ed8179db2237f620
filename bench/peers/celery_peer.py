"""Celery as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from celery import Celery  # type: ignore[import-not-found]
from celery.contrib.testing.worker import start_worker  # type: ignore[import-not-found]
from redis import Redis

from bench.peers.driver import Close, Driver, Task, current


class CeleryPeer(Driver):
    """The library, with its pool of threads: what it ran could not be seen in other processes."""

    blocking = True

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("celery", "kombu", "redis", "hiredis")}

    def open_sync(self, url: str, queue: str) -> tuple[Any, Any]:
        app = Celery("bench", broker=url, set_as_current=False)
        app.conf.task_default_queue = queue
        app.conf.broker_connection_retry_on_startup = True

        @app.task(name="process")  # type: ignore[untyped-decorator]
        def process(number: str, data: Any) -> None:
            current().begin(number)

        return app, process

    def add_sync(self, queue: tuple[Any, Any], data: Any) -> str:
        number = self.next_id()
        queue[1].delay(number, data)
        return number

    def close_sync(self, queue: tuple[Any, Any]) -> None:
        queue[0].close()

    async def work(self, url: str, queue: str, task: Task) -> Close:
        app, _ = self.open_sync(url, queue)
        app.finalize()
        opened = start_worker(app, concurrency=task.threads, pool="threads", perform_ping_check=False)
        await asyncio.to_thread(opened.__enter__)

        async def close() -> None:
            await asyncio.to_thread(opened.__exit__, None, None, None)

        return close

    def left(self, url: str, queue: str) -> int:
        with Redis.from_url(url) as client:
            return int(client.llen(queue)) + int(client.hlen("unacked"))


asyncio.run(CeleryPeer().serve())
