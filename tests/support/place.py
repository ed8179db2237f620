"""A queue, and workers that wait for its jobs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.support.eventually import aeventually
from toromq import Queue, Worker, sync

if TYPE_CHECKING:
    import redis as redis_py

# It looks by itself, and a lock runs out, only after the test has failed. The lock makes it arm waits of that length.
ASLEEP: dict[str, Any] = {"drain_delay": 600, "lock_duration": 2_000_000}


class Place:
    """A queue, and workers for it that note what they run."""

    def __init__(self, url: str, prefix: str, client: redis_py.Redis) -> None:
        self.url, self.prefix, self.redis = url, prefix, client
        self.queue: Queue[Any, Any] = Queue("q", connection=url, prefix=prefix)
        self.runs: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.block: Callable[[], None] = lambda: None

    def worker(self, name: str = "w", url: str | None = None, **options: Any) -> Worker[Any, Any]:
        """A worker whose jobs take as long as their data says, and wait for the gate; "blocks" keep the loop busy."""

        async def processor(job: Any) -> None:
            self.runs[str(job.id)] += 1
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
            if job.name == "blocks":
                self.block()
            try:
                await asyncio.sleep((job.data or 0) / 1000)
                await self.gate.wait()
            finally:
                self.running[name] -= 1

        options = {**ASLEEP, "connection": url or self.url, "prefix": self.prefix, **options}
        made: Worker[Any, Any] = Worker("q", processor, name=name, **options)
        made.on("error", self.errors.append)
        return made

    def client(self, name: str = "w") -> dict[str, Any]:
        """A worker's blocking connection as the server lists it."""
        clients = [client for client in self.redis.client_list() if client["name"].endswith(f":w:{name}")]
        found = [client for client in clients if client["name"].startswith(f"{self.prefix}:")]
        return found[-1] if found else {"cmd": "", "flags": ""}

    def is_asleep(self, *names: str) -> bool:
        """Whether these workers block on the marker, and there is none."""
        clients = [self.client(name) for name in names or ("w",)]
        blocked = all(client["cmd"] == "bzpopmin" and "b" in client["flags"] for client in clients)
        return blocked and not self.redis.exists(self.key("marker"))

    async def asleep(self, *names: str) -> None:
        """Returns when they do."""
        await aeventually(lambda: self.is_asleep(*names))

    def add_beside(self, count: int = 1) -> list[str]:
        """Adds jobs from another thread: the loop of this one is busy."""

        def add() -> list[str]:
            with sync.Queue("q", connection=self.url, prefix=self.prefix) as queue:
                return [str(queue.add("n").id) for _ in range(count)]

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(add).result()

    def key(self, suffix: str) -> str:
        return f"{self.prefix}:q:{suffix}"

    def stored(self, suffix: str) -> list[str]:
        """The ids in a list of jobs, or in a set of them."""
        return [_text(found) for found in self._ids(self.key(suffix))]

    def _ids(self, key: str) -> list[Any]:
        found = _text(self.redis.type(key))
        if found == "none":
            # It may be there by now.
            return []
        ids: Any = self.redis.zrange(key, 0, -1) if found == "zset" else self.redis.lrange(key, 0, -1)
        return list(ids)

    async def all_completed(self, ids: list[str]) -> None:
        await aeventually(lambda: sorted(self.stored("completed")) == sorted(ids), 30)
        assert self.runs == Counter(ids)
        assert self.stored("active") == []


def _text(found: Any) -> str:
    return found.decode() if isinstance(found, bytes) else str(found)
