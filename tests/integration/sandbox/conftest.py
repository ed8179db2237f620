"""Workers of both faces whose processors run in child processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import Queue, Worker

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

PROCESSORS = Path(__file__).with_name("processors.py")


def children(pid: int | None = None) -> list[int]:
    """The child processes of toromq's that this process has, or another one; zombies, too."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1]
            line = Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        # A zombie has no command line.
        if int(parent) == (pid or os.getpid()) and (b"toromq._sandbox" in line or not line):
            found.append(int(entry))
    return found


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Place:
    """A queue of its own, and workers for it."""

    def __init__(self, face: str, url: str, prefix: str, client: redispy.Redis) -> None:
        self.face, self.redis = face, client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format
        self.told: list[tuple[Any, ...]] = []

    def worker(self, processor: str, **options: Any) -> Any:
        """A worker for a function of processors.py, or for anything with a colon; it notes what it tells."""
        module: Any = toromq.sync if self.face == "toromq.sync" else toromq
        name = processor if ":" in processor else f"{PROCESSORS}:{processor}"
        worker = module.Worker("q", name, **self.options, **options)
        for event in ("active", "completed", "failed", "progress", "lock_lost", "error"):
            worker.on(event, lambda *arguments, event=event: self.told.append((event, *arguments)))
        return worker

    @contextlib.asynccontextmanager
    async def working(self, processor: str, **options: Any) -> AsyncIterator[Any]:
        """Such a worker, running within the block."""
        worker = self.worker(processor, **options)
        await self.start(worker)
        try:
            yield worker
        except BaseException:
            # What hangs in a failed test must not hold it up.
            await self.close(worker, force=True)
            raise
        await self.close(worker)

    async def start(self, worker: Any) -> None:
        """Start a worker of either face."""
        await (worker.__aenter__() if isinstance(worker, Worker) else asyncio.to_thread(worker.__enter__))

    async def close(self, worker: Any, force: bool = False) -> None:
        """Close a worker of either face."""
        await (worker.close(force) if isinstance(worker, Worker) else asyncio.to_thread(worker.close, force))

    async def ended(self, job_id: str, state: str = "completed") -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            job = await self.queue.get_job(job_id)
            assert await self.queue.get_job_state(job_id) == state, job and job.failed_reason
            return await self.queue.get_job(job_id)

        return await aeventually(found, 20)

    async def progress(self, job_id: str) -> Any:
        """What the job has reported, once it has."""

        async def reported() -> Any:
            job = await self.queue.get_job(job_id)
            assert job is not None
            return job.progress

        return await aeventually(reported, 20)


@pytest.fixture(params=["toromq", "toromq.sync"])
def face(request: pytest.FixtureRequest) -> str:
    """Both faces."""
    return str(request.param)


@pytest.fixture
async def place(face: str, redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test, which must leave no child process behind and no descriptor open."""
    place = Place(face, redisbox.url, prefix, redis)
    # What only the first use opens.
    await place.queue.get_job("none")
    yield place
    await place.queue.close()
    assert children() == []
