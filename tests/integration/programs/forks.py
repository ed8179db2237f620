"""Processes that fork after they have used toromq. Arguments: a function of this file, URL, prefix.

Every function ends the process with 0 and writes nothing to stderr, or says what went wrong. No wait is without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from toromq import Connection, Job, JobTimeoutError, Queue, Worker, sync

HOW, URL, PREFIX = sys.argv[1:]
# Python 3.12 warns of what is tested here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

_PATIENCE = 10.0
# A child that hangs tells where before its alarm ends it.
faulthandler.register(signal.SIGALRM, chain=True)
connection = Connection(URL)
queue: Queue[Any, Any] = Queue("jobs", connection=connection, prefix=PREFIX)
blocking: sync.Queue[Any, Any] = sync.Queue("jobs", connection=connection, prefix=PREFIX)
_fork_context = multiprocessing.get_context("fork")


def _fork(action: Callable[[], Any], leave: Callable[[int], Any] = sys.exit) -> int:
    pid = os.fork()
    if pid:
        return pid
    # No child outlives this, whatever hangs.
    signal.alarm(int(_PATIENCE))
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(9)
    leave(0)
    raise AssertionError


def _give_up(message: str) -> NoReturn:
    # Not sys.exit, which would wait for threads that nobody stops any more.
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def _reap(pid: int) -> None:
    deadline = time.monotonic() + _PATIENCE + 5
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _give_up(f"child {pid} hangs")
        time.sleep(0.002)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        _give_up(f"child {pid} hung until its alarm")
    if status:
        _give_up(f"child {pid} ended with status {status}")


def _run_multiprocessing(action: Callable[..., Any], *arguments: Any) -> None:
    child = _fork_context.Process(target=action, args=arguments)
    child.start()
    child.join(_PATIENCE)
    if child.exitcode != 0:
        child.kill()
        _give_up(f"the process of multiprocessing ended with {child.exitcode}")


def _add(job_id: str) -> None:
    """One job by each face, with the objects of the parent."""
    asyncio.run(queue.add("n", {}, job_id=f"{job_id}-async"))
    blocking.add("n", {}, job_id=f"{job_id}-sync")


def _say(line: str) -> None:
    """In one piece: several processes write to the same pipe."""
    print(f"{line}\n", end="", flush=True)


def _nothing() -> None:
    """A child that has no use for toromq."""


def _children(action: Callable[[str], Any], *, only_hard: bool = False) -> None:
    """One after the other, by every way to leave. A child of a running loop must not unwind it, so it leaves hard."""
    _reap(_fork(lambda: action("hard"), os._exit))
    if not only_hard:
        _reap(_fork(lambda: action("exit"), sys.exit))
    _run_multiprocessing(action, "multiprocessing")


def sync_parent() -> None:
    blocking.add("n", {}, job_id="parent-before")
    _children(_add)
    blocking.add("n", {}, job_id="parent-after")


async def async_parent() -> None:
    await queue.add("n", {}, job_id="parent-before")
    _children(_add, only_hard=True)
    await queue.add("n", {}, job_id="parent-after")


def _wait(name: str) -> None:
    """Both faces wait for jobs with the objects of the parent, of which one waits as well."""
    with sync.Worker("jobs", lambda job: job.id, connection=connection, prefix=PREFIX):
        for n in range(2):
            job = blocking.add("n", {}, job_id=f"{name}-{n}")
            assert job.wait_until_finished(int(_PATIENCE * 1000)) == job.id

        async def wait() -> None:
            job = await queue.add("n", {}, job_id=f"{name}-2")
            assert await job.wait_until_finished(int(_PATIENCE * 1000)) == job.id

        asyncio.run(wait())


async def waiting_parent() -> None:
    job = await queue.add("n", {}, job_id="parent", delay=3_600_000)
    waiting = asyncio.ensure_future(job.wait_until_finished())
    # By its end, the reader that they share reads.
    with contextlib.suppress(JobTimeoutError):
        await job.wait_until_finished(100)
    _children(_wait, only_hard=True)
    await job.promote()
    async with Worker("jobs", _identity, connection=connection, prefix=PREFIX), asyncio.timeout(_PATIENCE):
        assert await waiting == "parent"


def sync_waiting_parent() -> None:
    results: list[Any] = []
    job = blocking.add("n", {}, job_id="parent", delay=3_600_000)
    thread = threading.Thread(target=lambda: results.append(job.wait_until_finished()))
    thread.start()
    with contextlib.suppress(JobTimeoutError):
        job.wait_until_finished(100)
    _children(_wait)
    job.promote()
    with sync.Worker("jobs", lambda job: job.id, connection=connection, prefix=PREFIX):
        thread.join(_PATIENCE)
    assert results == ["parent"]


async def _identity(job: Job[Any, Any]) -> str:
    return job.id


async def worker_in_parent() -> None:
    seen: list[str | None] = []

    async def processor(job: Job[Any, Any]) -> None:
        seen.append(job.id)

    async with Worker("jobs", processor, connection=connection, prefix=PREFIX):
        await queue.add("n", {}, job_id="parent-before")
        _children(_add, only_hard=True)
        await queue.add("n", {}, job_id="parent-after")
        async with asyncio.timeout(_PATIENCE):
            while len(seen) < 6:
                await asyncio.sleep(0.01)


def sync_worker_in_parent() -> None:
    seen: list[str | None] = []
    worker: sync.Worker[Any, Any] = sync.Worker(
        "jobs", lambda job: seen.append(job.id), connection=connection, prefix=PREFIX
    )
    with worker:
        blocking.add("n", {}, job_id="parent-before")
        _reap(_fork(lambda: _add("hard"), os._exit))
        _run_multiprocessing(_add, "multiprocessing")
        blocking.add("n", {}, job_id="parent-after")
        deadline = time.monotonic() + _PATIENCE
        while len(seen) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(seen) == 6, seen


def child_leaves_the_with_block_of_a_worker() -> None:
    worker: sync.Worker[Any, Any] = sync.Worker("jobs", lambda job: None, connection=connection, prefix=PREFIX)
    with worker:
        pid = os.fork()
        if pid == 0:
            signal.alarm(2)
            sys.exit(0)
        _reap(pid)


async def child_closes_the_workers_of_its_parent() -> None:
    async def processor(job: Job[Any, Any]) -> None: ...

    async def close(worker: Worker[Any, Any]) -> None:
        await worker.close(force=True)

    worker: Worker[Any, Any] = Worker("jobs", processor, connection=connection, prefix=PREFIX)
    async with worker:
        pid = os.fork()
        if pid == 0:
            signal.alarm(2)
            asyncio.run(close(worker))
            os._exit(0)
        _reap(pid)


def idle_children() -> None:
    blocking.add("n", {}, job_id="parent-before")
    asyncio.run(queue.add("n", {}, job_id="parent-async"))
    worker: sync.Worker[Any, Any] = sync.Worker("idle", lambda job: None, connection=connection, prefix=PREFIX)
    worker.__enter__()
    for _ in range(5):
        _children(lambda name: _nothing())
    worker.close()
    blocking.add("n", {}, job_id="parent-after")


def subprocesses() -> None:
    blocking.add("n", {}, job_id="parent-before")
    command = [sys.executable, "-c", "import sys; sys.exit(3)"]
    worker: sync.Worker[Any, Any] = sync.Worker("idle", lambda job: None, connection=connection, prefix=PREFIX)
    with worker:
        assert subprocess.run(command, timeout=_PATIENCE).returncode == 3
        # With a function of Python to run in the child, it is forked rather than spawned.
        assert subprocess.run(command, preexec_fn=_nothing, timeout=_PATIENCE).returncode == 3
    blocking.add("n", {}, job_id="parent-after")


def preload() -> None:
    """Objects are made before the fork and used after it, in the children and in the parent."""
    workers: list[sync.Worker[Any, Any]] = [
        sync.Worker(f"own-{n}", lambda job: _say(job.token), connection=connection, prefix=PREFIX)
        for n in range(5)
    ]

    def serve(n: int) -> None:
        _add(f"child-{n}")
        completed = threading.Event()
        workers[n].on("completed", lambda job, result: completed.set())
        with workers[n]:
            sync.Queue(f"own-{n}", connection=connection, prefix=PREFIX).add("n")
            assert completed.wait(_PATIENCE)

    children = [_fork(lambda n=n: serve(n)) for n in range(4)]  # type: ignore[misc]
    for pid in children:
        _reap(pid)
    serve(4)


def workers_after_a_worker() -> None:
    """The parent's worker has run; whatever it drew at random must not be drawn again in the children."""

    def serve(n: int) -> None:
        completed = threading.Event()
        worker: sync.Worker[Any, Any] = sync.Worker(
            f"own-{n}", lambda job: _say(job.token), connection=connection, prefix=PREFIX
        )
        worker.on("completed", lambda job, result: completed.set())
        with worker:
            sync.Queue(f"own-{n}", connection=connection, prefix=PREFIX).add("n")
            assert completed.wait(_PATIENCE)

    serve(4)
    for pid in [_fork(lambda n=n: serve(n)) for n in range(4)]:  # type: ignore[misc]
        _reap(pid)


def during_first_use() -> None:
    """The fork falls into the moment when another thread has begun its very first operation."""
    began: list[bool] = []

    def begin() -> None:
        began.append(True)
        blocking.add("n", {}, job_id="parent")

    thread = threading.Thread(target=begin)
    thread.start()
    # Without a moment's rest: whoever wants the interpreter's lock when the other lets go of it gets it.
    while not began:
        time.sleep(0)

    def add() -> None:
        signal.alarm(2)
        blocking.add("n", {}, job_id="child")

    pid = _fork(add, os._exit)
    thread.join(_PATIENCE)
    _reap(pid)


def _fork_while_busy(leave: Callable[[int], Any], blocking_threads: int) -> None:
    """200 children, each with one job to add, while threads of the parent add through both faces."""
    stop = threading.Event()
    rounds = {"sync": 0, "async": 0}

    # The same jobs again and again: the engine is as busy, and Redis does not fill.
    def keep_adding() -> None:
        while not stop.is_set():
            blocking.add("n", {}, job_id="busy-sync")
            rounds["sync"] += 1

    async def keep_adding_many() -> None:
        while not stop.is_set():
            await asyncio.gather(*(queue.add("n", {}, job_id=f"busy-async-{n}") for n in range(20)))
            rounds["async"] += 1

    _add("parent-before")
    threads = [threading.Thread(target=lambda: asyncio.run(keep_adding_many()))]
    threads += [threading.Thread(target=keep_adding) for _ in range(blocking_threads)]
    for thread in threads:
        thread.start()

    def add_one(n: int) -> None:
        if n % 2:
            blocking.add("n", {}, job_id=f"child-{n}")
        else:
            asyncio.run(queue.add("n", {}, job_id=f"child-{n}"))

    running: list[int] = []
    for n in range(200):
        running.append(_fork(functools.partial(add_one, n), leave))
        if len(running) == 4:
            _reap(running.pop(0))
    for pid in running:
        _reap(pid)

    before = dict(rounds)
    deadline = time.monotonic() + _PATIENCE
    while any(rounds[face] < before[face] + 10 for face in rounds) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(_PATIENCE)
        assert not thread.is_alive()
    assert all(rounds[face] >= before[face] + 10 for face in rounds), "the parent's threads did not go on"


def while_busy() -> None:
    _fork_while_busy(os._exit, 1)


def while_busy_with_an_exit() -> None:
    """Now the children end as programs do, with all that Python and the engine do at the end."""
    # Many, so that at the moment of a fork one of them is likely to be inside the engine.
    _fork_while_busy(sys.exit, 24)


if __name__ == "__main__":
    shape = globals()[HOW]
    if asyncio.iscoroutinefunction(shape):
        asyncio.run(shape())
    else:
        shape()
