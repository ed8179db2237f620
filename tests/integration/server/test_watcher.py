"""A server that dies while a process uses it is started again; one that was asked to stop is not."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from tests.support.eventually import aeventually
from toromq import Queue, Worker, server


async def _double(job: object) -> int:
    return 2


async def test_a_killed_server_is_started_again_and_the_worker_goes_on(directory: Path) -> None:
    url = f"embedded:{directory}"
    completed: set[str] = set()
    worker = Worker("w", _double, connection=url, drain_delay=0.2)
    worker.on("completed", lambda job, result: completed.add(job.id))
    worker.on("error", lambda error: None)
    queue = Queue("w", connection=url)
    async with worker:
        for _ in range(3):
            job = await queue.add("a", 1)
            await aeventually(lambda job=job: job.id in completed, message="the job runs")
            pid = server.status(directory).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await aeventually(lambda pid=pid: server.status(directory).pid not in (None, pid))
        counts = await queue.get_job_counts("completed", "waiting", "active")
    assert counts == {"completed": 3, "waiting": 0, "active": 0}


async def test_a_stopped_server_stays_stopped_until_it_is_started(directory: Path) -> None:
    url = f"embedded:{directory}"
    completed = asyncio.Event()
    worker = Worker("w", _double, connection=url, drain_delay=0.2)
    worker.on("completed", lambda job, result: completed.set())
    stopped = asyncio.Event()
    worker.on("error", lambda error: stopped.set())
    async with worker:
        queue = Queue("w", connection=url)
        await queue.get_job_counts()
        assert server.stop(directory)
        await stopped.wait()
        assert not server.status(directory).running
        server.start(directory)
        await queue.add("a", 1)
        await completed.wait()
    server.stop(directory)
