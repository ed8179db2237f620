"""Operations of a queue are driven by the thread that asks: an event loop watches its own socket, a blocking caller
waits for its own. What that must not change: nothing is lost, done twice or stuck, whatever loop or thread does what.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.calling import wait_in_call
from tests.support.eventually import aeventually, eventually
from tests.support.redisbox import RedisBox
from toromq import Connection, Queue, RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redispy


@pytest.fixture
async def queue(redisbox: RedisBox, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    """A queue of its own."""
    async with Queue("q", connection=redisbox.url, prefix=prefix) as queue:
        yield queue


@pytest.fixture
def box() -> Iterator[RedisBox]:
    """A server that a test may stop."""
    with RedisBox() as box:
        yield box


def _ours(client: redispy.Redis, name: str) -> list[dict[str, Any]]:
    return [one for one in client.client_list() if one["name"] == name]


async def test_what_many_callers_add_at_once_is_there_once_and_in_order(
    queue: Queue[Any, Any], redis: redispy.Redis, prefix: str
) -> None:
    """Several calls may be under way together."""
    added = await asyncio.gather(*(queue.add("job", n) for n in range(1000)))
    ids = [job.id for job in added]
    assert len(set(ids)) == 1000
    assert [int(job_id) for job_id in redis.lrange(f"{prefix}:q:wait", 0, -1)[::-1]] == [int(job_id) for job_id in ids]


async def test_a_caller_finds_its_own_jobs_in_its_own_order_among_others(
    queue: Queue[Any, Any], redis: redispy.Redis, prefix: str
) -> None:
    """Bulks of several calls, fifty single callers, all at once."""
    orders: list[list[str]] = []

    async def one() -> None:
        orders.append([(await queue.add("job", n)).id for n in range(20)])

    async def bulk() -> None:
        orders.append([job.id for job in await queue.add_bulk([("job", n) for n in range(700)])])

    await asyncio.gather(*(one() for _ in range(50)), bulk(), bulk())
    waiting = [job_id for job_id in redis.lrange(f"{prefix}:q:wait", 0, -1)[::-1]]
    place = {(job_id.decode() if isinstance(job_id, bytes) else job_id): n for n, job_id in enumerate(waiting)}
    assert len(place) == sum(map(len, orders)) == 50 * 20 + 2 * 700
    for order in orders:
        assert [place[job_id] for job_id in order] == sorted(place[job_id] for job_id in order)


async def test_data_larger_than_the_sockets_hold_goes_through(queue: Queue[Any, Any]) -> None:
    """The loop is told to look when the socket can be written to, and no longer."""
    large = "x" * 20_000_000
    jobs = await asyncio.gather(*(queue.add("job", large) for _ in range(3)))
    found = [await queue.get_job(job.id) for job in jobs]
    assert [len(job.data) if job else None for job in found] == [len(large)] * 3
    assert (await queue.add("job", 1)).data == 1


def test_one_queue_serves_loops_one_after_the_other_and_at_once(
    redisbox: RedisBox, prefix: str, redis: redispy.Redis
) -> None:
    """Each loop has a connection of its own, which goes with it."""
    queue: Queue[Any, Any] = Queue(
        "q", connection=Connection(redisbox.url, client_name=f"loops-{prefix}"), prefix=prefix
    )

    async def add(count: int) -> list[str]:
        return [job.id for job in await asyncio.gather(*(queue.add("job", n) for n in range(count)))]

    ids = asyncio.run(add(10)) + asyncio.run(add(10))
    more: list[list[str]] = []
    threads = [threading.Thread(target=lambda: more.append(asyncio.run(add(100)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = ids + [job_id for found in more for job_id in found]
    assert len(set(every)) == len(every) == 420
    asyncio.run(queue.close())
    eventually(lambda: not _ours(redis, f"loops-{prefix}"))


async def test_a_closed_queue_leaves_no_connection(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> None:
    """The loop is told to forget the socket before its number is used again."""
    name = f"closing-{prefix}"
    for _ in range(3):
        async with Queue[Any, Any]("q", connection=Connection(redisbox.url, client_name=name), prefix=prefix) as queue:
            await queue.add("job")
            assert _ours(redis, name)

    await aeventually(lambda: not _ours(redis, name))


async def test_a_connection_that_was_killed_is_replaced(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> None:
    """Between calls, and with calls under way; no job is lost or there twice."""
    name = f"killed-{prefix}"
    async with Queue[Any, Any]("q", connection=Connection(redisbox.url, client_name=name), prefix=prefix) as queue:
        added: list[str] = []

        async def keep_adding() -> None:
            for n in range(300):
                added.append((await queue.add("job", n)).id)

        def kill() -> None:
            for client in _ours(redis, name):
                redis.client_kill_filter(_id=client["id"])

        tasks = [asyncio.ensure_future(keep_adding()) for _ in range(4)]
        killed_at = 0
        while not all(task.done() for task in tasks):
            # Something gets through between two of them, on a slow machine as well.
            if len(added) >= killed_at + 20:
                killed_at = len(added)
                await asyncio.to_thread(kill)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
    assert len(set(added)) == len(added) == redis.llen(f"{prefix}:q:wait") == 1200


async def test_a_loop_that_was_blocked_for_longer_than_a_reply_may_take(
    redisbox: RedisBox, prefix: str, redis: redispy.Redis
) -> None:
    """The reply was there all the time: it is taken, and not asked for again."""
    connection = Connection(redisbox.url, command_timeout=400)
    async with Queue[Any, Any]("q", connection=connection, prefix=prefix) as queue:
        await queue.add("job", 0)
        redis.config_resetstat()
        adding = asyncio.ensure_future(queue.add("job", 1))
        await asyncio.sleep(0)
        # The test is about a loop that does not turn.
        time.sleep(0.8)
        await adding
        assert redis.llen(f"{prefix}:q:wait") == 2
        calls: Any = redis.info("commandstats")
        assert calls["cmdstat_evalsha"]["calls"] == 1


async def test_a_server_that_stands_still_does_not_hold_the_loop(box: RedisBox, prefix: str) -> None:
    """The loop goes on turning, and the caller is told when its time is over."""
    async with Queue[Any, Any]("q", connection=Connection(box.url, command_timeout=500), prefix=prefix) as queue:
        await queue.add("job", 0)
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        turning = asyncio.ensure_future(turn())
        os.kill(box.pid, signal.SIGSTOP)
        try:
            with pytest.raises(RedisConnectionError):
                await queue.add("job", 1)
            # Held, it would not have turned at all.
            assert turns > 1
        finally:
            os.kill(box.pid, signal.SIGCONT)
            turning.cancel()
        await aeventually(queue.get_job_counts)


async def test_a_cancelled_caller_leaves_the_others_alone(
    queue: Queue[Any, Any], redis: redispy.Redis, prefix: str
) -> None:
    """What it had handed in is added all the same, and so are the jobs that shared its call."""
    await queue.add("job", 0)
    tasks = [asyncio.ensure_future(queue.add("job", n)) for n in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one).__name__ for one in ended] == ["CancelledError", "Job"] * 20
    await aeventually(queue.get_job_counts)
    assert redis.llen(f"{prefix}:q:wait") == 41


def test_threads_share_what_one_of_them_carries(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> None:
    """Any number of threads, few connections, every job once."""
    name = f"threads-{prefix}"
    connection = Connection(redisbox.url, client_name=name)
    with toromq.sync.Queue[Any, Any]("q", connection=connection, prefix=prefix) as queue:
        ids: list[str] = []

        def add() -> None:
            for n in range(30):
                ids.append(queue.add("job", n).id)
                assert queue.get_job(ids[-1]) is not None

        threads = [threading.Thread(target=add) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ids)) == len(ids) == redis.llen(f"{prefix}:q:wait") == 600
        # Four that threads drive themselves, and the engine's.
        assert len(_ours(redis, name)) <= 5
    connection.close()


def test_a_thread_sends_and_reads_more_than_its_socket_holds(box: RedisBox, prefix: str) -> None:
    """In pieces, over TCP and a Unix socket."""
    large = "x" * 20_000_000
    for url in (box.url, box.unix_url):
        with toromq.sync.Queue[Any, Any]("q", connection=url, prefix=prefix) as queue:
            jobs = queue.add_bulk([("job", large), ("job", 1)])
            found = [queue.get_job(job.id) for job in jobs]
            assert [job.data == data for job, data in zip(found, (large, 1), strict=True) if job] == [True, True]


def test_a_thread_whose_connection_has_gone_makes_another_one(
    redisbox: RedisBox, prefix: str, redis: redispy.Redis
) -> None:
    """It finds out when it sends or reads; what it does is done once."""
    name = f"gone-{prefix}"
    connection = Connection(redisbox.url, client_name=name)
    with toromq.sync.Queue[Any, Any]("q", connection=connection, prefix=prefix) as queue:
        for n in range(5):
            job = queue.add("job", n)
            for client in _ours(redis, name):
                redis.client_kill_filter(_id=client["id"])
            assert queue.get_job(job.id) is not None
        assert redis.llen(f"{prefix}:q:wait") == 5
    connection.close()


def test_a_thread_is_told_when_the_server_stands_still(box: RedisBox, prefix: str) -> None:
    """Whether it waits for a reply or can't get rid of what it sends; and goes on when the server does."""
    with toromq.sync.Queue[Any, Any]("q", connection=Connection(box.url, command_timeout=300), prefix=prefix) as queue:
        queue.add("job", 0)
        for data in ("small", "x" * 20_000_000):
            os.kill(box.pid, signal.SIGSTOP)
            try:
                with pytest.raises(RedisConnectionError):
                    queue.add("job", data)
            finally:
                os.kill(box.pid, signal.SIGCONT)
            assert eventually(lambda: queue.get_job(queue.add("job", 1).id)) is not None


def test_ctrl_c_ends_a_blocking_call_and_not_what_it_began(box: RedisBox, prefix: str) -> None:
    """The job is added when the server answers again."""
    with toromq.sync.Queue[Any, Any]("q", connection=box.url, prefix=prefix) as queue:
        queue.add("job", 0)
        os.kill(box.pid, signal.SIGSTOP)
        interrupt = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        interrupt.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                queue.add("job", 1)
        finally:
            os.kill(box.pid, signal.SIGCONT)
            interrupt.join()
        eventually(lambda: queue.get_job_counts("waiting")["waiting"] == 2)
        assert queue.add("job", 2).id


@contextlib.contextmanager
def _handled(handler: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Gives what sends this process a signal, at which its main thread calls `handler`."""
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("others", [0, 5])
def test_a_signals_handler_adds_while_its_thread_waits(box: RedisBox, prefix: str, others: int) -> None:
    """Both calls get their own answer: the one that was interrupted is not in the other's way, nor loses what it waits
    for to it, whether its thread carries it or another one does."""
    with toromq.sync.Queue[Any, Any]("q", connection=box.url, prefix=prefix) as queue:
        queue.add("job")
        added: list[str] = []
        began = threading.Event()

        def handle() -> None:
            began.set()
            added.append(queue.add("job").id)

        threads = [threading.Thread(target=lambda: added.append(queue.add("job").id)) for _ in range(others)]

        def go_on() -> None:
            wait_in_call([threading.main_thread()])
            interrupt()
            began.wait()
            os.kill(box.pid, signal.SIGCONT)

        with _handled(handle) as interrupt:
            os.kill(box.pid, signal.SIGSTOP)
            for thread in threads:
                thread.start()
            threads.append(threading.Thread(target=go_on))
            threads[-1].start()
            added.append(queue.add("job").id)
            for thread in threads:
                thread.join()
        assert len(set(added)) == len(added) == others + 2
        assert queue.get_job_counts("waiting") == {"waiting": others + 3}


def test_a_signals_handler_adds_at_any_moment(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> None:
    """Right before a call, within it, and before it has looked at its answer."""
    with toromq.sync.Queue[Any, Any]("q", connection=redisbox.url, prefix=prefix) as queue:
        added: list[str] = []
        handled: list[str] = []

        def interrupt_again_and_again() -> None:
            for count in range(50):
                interrupt()
                # One at a time: handlers within handlers are not what this is about.
                eventually(lambda count=count: len(handled) > count)

        with _handled(lambda: handled.append(queue.add("job").id)) as interrupt:
            thread = threading.Thread(target=interrupt_again_and_again)
            thread.start()
            while thread.is_alive():
                added.append(queue.add("job").id)
            thread.join()
        assert len(handled) == 50
        assert len({*added, *handled}) == len(added) + 50 == redis.llen(f"{prefix}:q:wait")
