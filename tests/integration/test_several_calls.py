"""Calls of a worker that go out before the answers to earlier ones: each job runs once, whatever becomes of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually, eventually
from tests.support.holding_proxy import HoldingProxy
from tests.support.invariants import check_invariants
from tests.support.lossy import LossyProxy
from toromq import Connection, Queue, Worker

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

# How many jobs a call writes at most.
_ONE_CALL = 64
# So that enough are left for another.
_CONCURRENCY = 3 * _ONE_CALL


class Place:
    """A queue with a backlog, and a worker for it whose jobs wait for the gate."""

    def __init__(self, redisbox: RedisBox, prefix: str, client: redis_py.Redis) -> None:
        self._box, self._prefix, self.redis = redisbox, prefix, client
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0
        self.runs: Counter[str] = Counter()
        self.completed: list[str] = []
        self.errors: list[Exception] = []

    async def add(self, jobs: int) -> list[str]:
        async with Queue("q", connection=self._box.url, prefix=self._prefix) as queue:
            return [str(job.id) for job in await queue.add_bulk([("n", n) for n in range(jobs)])]

    def worker(self, url: str, **options: Any) -> Worker[Any, Any]:
        async def process(job: Any) -> None:
            self.runs[job.id] += 1
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.gate.wait()
            finally:
                self.running -= 1

        given: dict[str, Any] = {"concurrency": _CONCURRENCY, **options}
        # An answer that is held back is not given up.
        connection = Connection(url, command_timeout=60_000)
        made: Worker[Any, Any] = Worker("q", process, connection=connection, prefix=self._prefix, **given)
        made.on("completed", lambda job, _: self.completed.append(job.id))
        made.on("error", self.errors.append)
        return made

    def count(self, state: str) -> int:
        key = f"{self._prefix}:q:{state}"
        found: Any = self.redis.llen(key) if state in ("wait", "active") else self.redis.zcard(key)
        return int(found)

    def kill_connections(self) -> None:
        """Ends those that have called a script last."""
        for client in self.redis.client_list():
            if client["cmd"] == "evalsha":
                self.redis.client_kill_filter(_id=client["id"])

    def check(self) -> None:
        """No lie stands in the keys, and nobody saw too many jobs at once."""
        assert check_invariants(self.redis, self._prefix) == []
        assert self.most <= _CONCURRENCY


@pytest.fixture
def place(redisbox: RedisBox, prefix: str, redis: redis_py.Redis) -> Place:
    return Place(redisbox, prefix, redis)


@pytest.fixture
def proxy(redisbox: RedisBox) -> Iterator[HoldingProxy]:
    with HoldingProxy(redisbox.socket_path) as started:
        yield started


@pytest.fixture
async def under_way(place: Place, proxy: HoldingProxy) -> AsyncIterator[tuple[Worker[Any, Any], list[str]]]:
    """A worker whose jobs have ended, and calls of which are done and not answered."""
    ids = await place.add(3 * _CONCURRENCY)
    async with place.worker(proxy.url) as worker:
        await aeventually(lambda: place.running == _CONCURRENCY)
        proxy.hold("other", told=True)
        place.gate.set()
        await aeventually(lambda: place.count("completed") > _ONE_CALL)
        # As many were fetched as were written.
        assert place.count("active") == _CONCURRENCY
        yield worker, ids
        proxy.let_go("other")
    place.check()


async def test_what_ends_is_written_before_earlier_calls_are_answered_and_jobs_begin_in_their_order(
    place: Place, proxy: HoldingProxy, under_way: tuple[Worker[Any, Any], list[str]]
) -> None:
    _, ids = under_way
    assert place.completed == []
    proxy.let_go("other")
    await aeventually(lambda: place.count("completed") == len(ids))
    assert list(place.runs) == ids
    assert set(place.runs.values()) == {1}


async def test_answers_that_are_lost_cost_no_job(
    place: Place, proxy: HoldingProxy, under_way: tuple[Worker[Any, Any], list[str]]
) -> None:
    _, ids = under_way
    # What the server said is still held here, and is never heard of.
    place.kill_connections()
    proxy.let_go("other")
    await aeventually(lambda: place.count("completed") == len(ids))
    assert place.runs == Counter(ids)
    await aeventually(lambda: sorted(place.completed) == sorted(ids))


@pytest.mark.parametrize("force", [False, True])
async def test_a_close_waits_for_all_answers(
    place: Place, proxy: HoldingProxy, under_way: tuple[Worker[Any, Any], list[str]], force: bool
) -> None:
    worker, ids = under_way
    told = asyncio.Event()
    worker.on("closing", lambda _: told.set())
    closing = asyncio.ensure_future(worker.close(force=force))
    await told.wait()
    proxy.let_go("other")
    await closing
    # What came with the answers was run or handed back.
    assert place.count("active") == 0
    assert place.count("completed") + place.count("wait") == len(ids)
    assert place.runs == Counter(ids[: place.count("completed")])


async def test_a_pause_waits_for_all_answers(
    place: Place, proxy: HoldingProxy, under_way: tuple[Worker[Any, Any], list[str]]
) -> None:
    worker, ids = under_way
    pausing = asyncio.ensure_future(worker.pause())
    proxy.let_go("other")
    await pausing
    assert place.count("active") == 0
    assert place.count("completed") + place.count("wait") == len(ids)


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_connections_that_break_again_and_again_cost_no_job(place: Place, redisbox: RedisBox, lost: Any) -> None:
    ids = await place.add(10 * _CONCURRENCY)
    place.gate.set()
    async with LossyProxy(redisbox.url) as proxy, place.worker(proxy.url, run_retry_delay=20):
        for part in range(1, 10):
            await aeventually(lambda: place.count("completed") >= part * _CONCURRENCY)  # noqa: B023 - awaited here
            with proxy.losing(lost):
                await aeventually(lambda: proxy.lost == part)  # noqa: B023 - awaited here
        await aeventually(lambda: place.count("completed") == len(ids))
    assert place.runs == Counter(ids)
    place.check()


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_what_has_ended_is_written_while_the_next_job_leaves_no_time_for_anything(
    place: Place, redisbox: RedisBox, prefix: str, kind: str
) -> None:
    await place.add(2)
    written: list[bool] = []

    def hold_until_the_first_is_written(job: Any) -> None:
        if job.data == 1:
            eventually(lambda: place.count("completed") == 1)
            written.append(True)

    async def hold_the_loop(job: Any) -> None:
        hold_until_the_first_is_written(job)

    processor: Any = hold_the_loop if kind == "async def" else hold_until_the_first_is_written
    # One after the other in one thread, so that the first ends while the other has not begun.
    async with Worker("q", processor, connection=redisbox.url, prefix=prefix, concurrency=2):
        await aeventually(lambda: place.count("completed") == 2)
    assert written == [True]
