"""A process that adds one job, prints its id, and ends in one of many ways.

Arguments: a function of this file, URL, prefix. What is left unfinished goes to the queue `maybe`, so that `jobs` holds
exactly what was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from typing import Any

from toromq import Connection, Job, JobTimeoutError, Queue, RedisConnectionError, Worker, sync

HOW, URL, PREFIX = sys.argv[1:]
# So that nothing is collected before the interpreter ends.
kept: list[Any] = []


def _queue(name: str = "jobs") -> Queue[Any, Any]:
    return Queue(name, connection=URL, prefix=PREFIX)


def _sync_queue(name: str = "jobs") -> sync.Queue[Any, Any]:
    return sync.Queue(name, connection=URL, prefix=PREFIX)


async def _forever(job: Job[Any, Any]) -> None:
    await asyncio.Event().wait()


# --- ends that are clean ----------------------------------------------------------------------------------------------


async def closed() -> None:
    async with _queue() as queue:
        print((await queue.add("n")).id)


async def unclosed() -> None:
    kept.append(_queue())
    print((await kept[0].add("n")).id)


async def in_flight() -> None:
    await unclosed()
    kept.extend(asyncio.ensure_future(_queue("maybe").add("n")) for _ in range(3))
    kept.append(asyncio.ensure_future(kept[0].get_jobs()))
    await asyncio.sleep(0)


async def exit_in_flight() -> None:
    await in_flight()
    sys.exit(0)


async def waiting() -> None:
    await unclosed()
    (job,) = await kept[0].get_jobs(end=0)
    kept.extend(asyncio.ensure_future(job.wait_until_finished()) for _ in range(3))
    with contextlib.suppress(JobTimeoutError):
        await job.wait_until_finished(20)


async def exit_waiting() -> None:
    await waiting()
    sys.exit(0)


async def worker_unclosed() -> None:
    await unclosed()
    kept.append(await Worker("idle", _forever, connection=URL, prefix=PREFIX).__aenter__())


def sync_closed() -> None:
    with _sync_queue() as queue:
        print(queue.add("n").id)


def sync_unclosed() -> None:
    kept.append(_sync_queue())
    print(kept[0].add("n").id)


def sync_waiting() -> None:
    sync_unclosed()
    (job,) = kept[0].get_jobs(end=0)
    threading.Thread(target=job.wait_until_finished, daemon=True).start()
    with contextlib.suppress(JobTimeoutError):
        job.wait_until_finished(20)


def sync_threads_in_flight() -> None:
    """Threads that the interpreter does not wait for are in the middle of adding."""
    sync_unclosed()
    began = threading.Barrier(21)

    def add() -> None:
        kept[0].add("other")
        began.wait()
        while True:
            kept[0].add("other")

    for _ in range(20):
        threading.Thread(target=add, daemon=True).start()
    began.wait()


def sync_exit() -> None:
    sync_unclosed()
    sys.exit(0)


def sync_worker_unclosed() -> None:
    sync_unclosed()
    kept.append(sync.Worker("idle", lambda job: None, connection=URL, prefix=PREFIX).__enter__())


# --- ends that are not ------------------------------------------------------------------------------------------------


def raises() -> None:
    sync_unclosed()
    raise ValueError("the program's own mistake")


async def raises_in_flight() -> None:
    await in_flight()
    raise ValueError("the program's own mistake")


def thread_in_flight() -> None:
    """The interpreter waits for such a thread, so it may count on finishing what it does."""
    threading.Thread(target=sync_unclosed).start()
    print("the main thread ends", flush=True)


# --- Redis is away ----------------------------------------------------------------------------------------------------


def _impatient() -> Connection:
    return Connection(URL, command_timeout=100)


async def away() -> None:
    try:
        await Queue("jobs", connection=_impatient(), prefix=PREFIX).add("n")
    except RedisConnectionError as error:
        print(error)


def sync_away() -> None:
    try:
        sync.Queue("jobs", connection=_impatient(), prefix=PREFIX).add("n")
    except RedisConnectionError as error:
        print(error)


def sync_away_raises() -> None:
    sync.Queue("jobs", connection=_impatient(), prefix=PREFIX).add("n")


async def away_in_flight() -> None:
    # An hour of patience, which the exit must not share.
    queue: Queue[Any, Any] = Queue("jobs", connection=Connection(URL, command_timeout=3_600_000), prefix=PREFIX)
    kept.append(asyncio.ensure_future(queue.add("n")))
    await asyncio.sleep(0)


async def away_worker_unclosed() -> None:
    failed = asyncio.Event()
    worker: Worker[Any, Any] = Worker("idle", _forever, connection=URL, prefix=PREFIX)
    worker.on("error", lambda error: failed.set())
    kept.append(await worker.__aenter__())
    await failed.wait()


def sync_away_worker_unclosed() -> None:
    failed = threading.Event()
    worker: sync.Worker[Any, Any] = sync.Worker("idle", lambda job: None, connection=URL, prefix=PREFIX)
    worker.on("error", lambda error: failed.set())
    kept.append(worker.__enter__())
    failed.wait()


if __name__ == "__main__":
    end = globals()[HOW]
    if asyncio.iscoroutinefunction(end):
        asyncio.run(end())
    else:
        end()
