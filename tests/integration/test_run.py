"""How workers start, pause and end: by hand, by a `with` block, and as a program that gets signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import ConfigurationError, Queue, ToroError, Worker

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
# Only to end a test that found a deadlock.
_LONG = 20
_all_kinds = pytest.mark.parametrize("kind", _KINDS)

# What each of the programs below begins with.
_BEGIN = """
import asyncio, os, sys, threading, toromq, toromq.sync
kind, url, prefix = sys.argv[1:]
module = toromq.sync if "blocking" in kind else toromq
def say(text):
    os.write(1, text.encode() + b"\\n")  # In one piece, whatever other threads say
"""


class Place:
    """A queue of its own, and workers for it of each kind, whose jobs run until they are let go."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis, self.url, self.prefix = client, url, prefix
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.go_on = threading.Event()
        self.ran: list[Any] = []

    def worker(self, kind: str, run: Callable[[Any], Any] | None = None, **options: Any) -> Any:
        """A worker that was not started; without `run`, its jobs wait for `go_on`."""

        async def coroutine(job: Any) -> Any:
            self.ran.append(job.data)
            return run(job) if run else await aeventually(self.go_on.is_set, _LONG)

        def function(job: Any) -> Any:
            self.ran.append(job.data)
            return run(job) if run else self.go_on.wait(_LONG)

        if kind == "def, blocking worker":
            return toromq.sync.Worker("q", function, **self.options, **options)
        return Worker("q", coroutine if kind == "async def" else function, **self.options, **options)

    async def result(self, added: Any) -> Any:
        """What a job returned, once it is there."""
        await aeventually(lambda: self.redis.zscore(f"{self.prefix}:q:completed", added.id) is not None)
        job = await self.queue.get_job(added.id)
        return job and job.returnvalue

    async def state(self, job: Any) -> tuple[str, int, int]:
        """The job's state, its attempts made and started."""
        found = await self.queue.get_job(job.id)
        assert found is not None
        return await found.get_state(), found.attempts_made, found.attempts_started


async def _call(method: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a method of either face."""
    if asyncio.iscoroutinefunction(method):
        return await method(*arguments)
    return await asyncio.to_thread(method, *arguments)


@contextlib.asynccontextmanager
async def _started(worker: Any) -> AsyncIterator[Any]:
    await _call(getattr(worker, "__aenter__", None) or worker.__enter__)
    try:
        yield worker
    finally:
        await _call(worker.close)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test."""
    place = Place(redisbox.url, prefix, redis)
    yield place
    place.go_on.set()
    await place.queue.close()


# --- starting and pausing ---------------------------------------------------------------------------------------------


@_all_kinds
async def test_run_starts_a_worker_and_returns_once_it_is_closed(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    worker = place.worker(kind, lambda _: None)
    assert not worker.is_running()
    running = asyncio.create_task(_call(worker.run))
    await aeventually(lambda: worker.is_running())
    await aeventually(lambda: place.ran == [job.data])
    await _call(worker.close)
    await asyncio.wait_for(running, _LONG)
    assert not worker.is_running()
    assert await place.state(job) == ("completed", 1, 1)


@_all_kinds
async def test_a_worker_that_was_closed_before_its_start_does_not_start(place: Place, kind: str) -> None:
    worker = place.worker(kind, lambda _: None)
    await _call(worker.close)
    with pytest.raises(ToroError, match="the worker of q was closed; make a new one"):
        await _call(worker.run)
    assert not worker.is_running()


@pytest.mark.parametrize("again", ["with", "run"])
@_all_kinds
async def test_a_closed_worker_does_not_start_again(place: Place, kind: str, again: str) -> None:
    worker = place.worker(kind, lambda _: None)
    async with _started(worker):
        pass
    enter = getattr(worker, "__aenter__", None) or worker.__enter__
    with pytest.raises(ToroError, match="the worker of q was started before; make a new one"):
        await _call(enter if again == "with" else worker.run)
    assert not worker.is_running()


# In a process of its own, because what it leaves behind can't be closed any more.
_STARTS_TWICE = """
async def main():
    worker = module.Worker("q", lambda job: None, connection=url, prefix=prefix)
    for n in range(2):
        try:
            started = worker.__enter__() if "blocking" in kind else await worker.__aenter__()
        except toromq.ToroError:
            say(f"running: {worker.is_running()}")
    closed = worker.close() if "blocking" in kind else await worker.close()
    say("closed")
asyncio.run(main())
"""


@_all_kinds
async def test_a_second_start_leaves_a_running_worker_alone(place: Place, kind: str) -> None:
    async with _program(place, kind, _STARTS_TWICE) as program:
        assert await program.lines_until("closed") == ["running: True", "closed"]


async def test_a_worker_without_processor_can_not_be_started(place: Place) -> None:
    workers: list[Any] = [Worker("q", **place.options), toromq.sync.Worker("q", **place.options)]
    for worker in workers:
        with pytest.raises(ConfigurationError, match="processor: None"):
            await _call(worker.run)
        assert not worker.is_running()


@_all_kinds
async def test_a_paused_worker_takes_nothing_until_it_is_resumed(place: Place, kind: str) -> None:
    worker, other = place.worker(kind, lambda _: "mine"), place.worker(kind, lambda _: "other")
    async with _started(worker):
        assert await place.result(await place.queue.add("n")) == "mine"
        await _call(worker.pause)
        assert (worker.is_paused(), worker.is_running()) == (True, True)
        async with _started(other):
            assert await place.result(await place.queue.add("n")) == "other"
        await _call(worker.resume)
        assert not worker.is_paused()
        assert await place.result(await place.queue.add("n")) == "mine"


@_all_kinds
async def test_a_worker_that_was_paused_before_its_start_takes_nothing(place: Place, kind: str) -> None:
    for _ in range(10):
        worker = place.worker(kind, lambda _: "mine")
        await _call(worker.pause)
        added = await place.queue.add("n")
        async with _started(worker):
            # By then it is at work.
            await aeventually(lambda: place.redis.delete(f"{place.prefix}:q:stalled-check"))
            async with _started(place.worker(kind, lambda _: "other")):
                assert await place.result(added) == "other"


# --- closing ----------------------------------------------------------------------------------------------------------


@_all_kinds
async def test_close_waits_for_what_runs_and_takes_nothing_more(place: Place, kind: str) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(4)])
    told: list[str] = []
    worker = place.worker(kind, concurrency=2)
    for event in ("closing", "closed"):
        worker.on(event, lambda *_, event=event: told.append(event))
    async with _started(worker):
        await aeventually(lambda: len(place.ran) == 2)
        closing = [asyncio.create_task(_call(worker.close)) for _ in range(3)]
        await aeventually(lambda: "closing" in told)
        assert (worker.is_running(), [task.done() for task in closing]) == (True, [False] * 3)
        place.go_on.set()
        await asyncio.wait_for(asyncio.gather(*closing), _LONG)
        assert not worker.is_running()
    states = [await place.state(job) for job in jobs]
    assert states[:2] == [("completed", 1, 1)] * 2
    # A thread that closes may be held up between what it tells and what it does.
    assert set(states[2:]) <= {("waiting", 0, 0)} | ({("completed", 1, 1)} if "blocking" in kind else set())
    await aeventually(lambda: told[-1] == "closed")
    assert told.count("closed") == 1


async def test_a_forced_close_cancels_coroutines_and_hands_their_jobs_back(place: Place) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(3)])
    async with place.worker("async def", concurrency=2) as worker:
        await aeventually(lambda: len(place.ran) == 2)
        graceful = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        await asyncio.wait_for(worker.close(force=True), _LONG / 2)
        await graceful
    assert [await place.state(job) for job in jobs] == [("waiting", 0, 1)] * 2 + [("waiting", 0, 0)]
    assert place.redis.lrange(f"{place.prefix}:q:wait", 0, 0) == [jobs[2].id]  # The last to run


@pytest.mark.parametrize("kind", _KINDS[1:])
async def test_a_forced_close_does_not_wait_for_threads_nor_write_what_they_return(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    worker = place.worker(kind)
    async with _started(worker):
        await aeventually(lambda: len(place.ran) == 1)
        await asyncio.wait_for(_call(worker.close, True), _LONG)
        assert not worker.is_running()
    place.go_on.set()
    await aeventually(lambda: not any(thread.name == "toromq-processor" for thread in threading.enumerate()))
    assert await place.state(job) == ("active", 0, 1)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("module", [toromq, toromq.sync])
async def test_a_job_can_not_close_its_own_worker(place: Place, module: Any, force: bool) -> None:
    async def coroutine(job: Any) -> None:
        await worker.close(force)

    worker: Any = module.Worker("q", coroutine if module is toromq else lambda _: worker.close(force), **place.options)
    job = await place.queue.add("n")
    async with _started(worker):
        await aeventually(lambda: place.redis.zcard(f"{place.prefix}:q:failed") == 1)
        assert worker.is_running()
    reason = place.redis.hget(f"{place.prefix}:q:{job.id}", "failedReason")
    assert str(reason).startswith("a job that closes its worker would wait for itself")


async def test_a_with_block_that_raises_still_waits_for_what_runs(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker("async def")
    worker.on("closing", lambda _: place.go_on.set())
    with pytest.raises(LookupError, match="of the block"):  # noqa: PT012 - the block is what is tested
        async with worker:
            await aeventually(lambda: len(place.ran) == 1)
            raise LookupError("of the block")
    assert await place.state(job) == ("completed", 1, 1)


# --- as a program -----------------------------------------------------------------------------------------------------

# Says what happens, line by line; its job ends when it is told to.
_PROGRAM = """
go_on = threading.Event()
threading.Thread(target=lambda: sys.stdin.readline() and go_on.set(), daemon=True).start()
async def coroutine(job):
    say("began")
    try:
        while not go_on.is_set():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        say("cancelled")
        raise
def function(job):
    say("began")
    go_on.wait()
worker = module.Worker("q", coroutine if "async" in kind else function, connection=url, prefix=prefix)
worker.on("closing", lambda reason: say("closing"))
other = toromq.Worker("empty", function, connection=url, prefix=prefix)
other.on("ready", lambda: say("ready"))
toromq.run(worker, other)
say("returned")
"""

_MANY = """
os.cpu_count = lambda: 1  # From which asyncio takes how many threads it has
workers = [toromq.sync.Worker(f"q{n}", lambda job: None, connection=url, prefix=prefix) for n in range(8)]
for n, worker in enumerate(workers):
    worker.on("ready", lambda n=n: say(f"ready {n}"))
toromq.run(*workers)
say("returned")
"""

_LATE = """
closed = threading.Event()
class Late(toromq.sync.Worker):
    def run(self):
        closed.wait(1)  # As on a busy machine
        super().run()
    def close(self, force=False):
        super().close(force)
        closed.set()
try:
    toromq.run(Late("q", lambda job: None, connection=url, prefix=prefix), toromq.Worker("q", connection=url))
except toromq.ConfigurationError:
    say("refused")
"""


class _Program:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.send_signal = process.send_signal

    async def lines_until(self, *wanted: str, timeout: float = _LONG) -> list[str]:
        """The lines up to the one with which all those wanted are there."""
        assert self._process.stdout is not None
        lines: list[str] = []
        while not set(wanted) <= set(lines):
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
            assert line, f"it ended after {lines}"
            lines.append(line.decode().strip())
        return lines

    async def end(self) -> tuple[str, int | None]:
        """Lets its job go; gives what it said from then on, and its exit code."""
        said, _ = await asyncio.wait_for(self._process.communicate(b"\n"), _LONG)
        return said.decode(), self._process.returncode


@contextlib.asynccontextmanager
async def _program(place: Place, kind: str, text: str) -> AsyncIterator[_Program]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BEGIN + text, kind, place.url, place.prefix, stdin=pipe, stdout=pipe, env=os.environ
    )
    try:
        yield _Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@_all_kinds
async def test_a_signal_lets_what_runs_end_and_then_the_program(place: Place, kind: str, number: int) -> None:
    job = await place.queue.add("n", 1)
    async with _program(place, kind, _PROGRAM) as program:
        await program.lines_until("ready", "began")
        program.send_signal(number)
        await program.lines_until("closing")
        assert (await place.state(job))[0] == "active"
        assert await program.end() == ("returned\n", 0)
    assert await place.state(job) == ("completed", 1, 1)


@_all_kinds
async def test_a_second_signal_does_not_wait_for_what_runs(place: Place, kind: str) -> None:
    job = await place.queue.add("n", 1)
    async with _program(place, kind, _PROGRAM) as program:
        await program.lines_until("ready", "began")
        program.send_signal(signal.SIGTERM)
        await program.lines_until("closing")
        program.send_signal(signal.SIGINT)
        said = await program.lines_until("returned")
        assert ("cancelled" in said) == (kind == "async def")
        # A thread can't be stopped, so the process lives as long as that does.
        assert await program.end() == ("", 0)
    assert await place.state(job) == ("waiting" if kind == "async def" else "active", 0, 1)


async def test_a_program_can_have_many_blocking_workers(place: Place) -> None:
    async with _program(place, "", _MANY) as program:
        await program.lines_until(*(f"ready {n}" for n in range(8)), timeout=5)
        program.send_signal(signal.SIGTERM)
        assert await program.end() == ("returned\n", 0)


async def test_run_closes_the_others_when_one_can_not_start(place: Place) -> None:
    async with _program(place, "", _LATE) as program:
        await program.lines_until("refused", timeout=5)
        assert await program.end() == ("", 0)


@_all_kinds
async def test_run_says_where_it_can_not_be_called(place: Place, kind: str) -> None:
    """Before anything is started; signals are for the main thread, and loops can't be within loops."""
    worker = place.worker(kind)
    with pytest.raises(ToroError, match="in a coroutine use `async with worker`"):
        toromq.run(worker)
    with pytest.raises(ToroError, match=r"only the main thread can; in another one use worker\.run\(\)"):
        await asyncio.to_thread(toromq.run, worker)
    assert not worker.is_running()
    async with _started(worker):
        pass
