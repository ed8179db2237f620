"""Many threads that add through the blocking face: some of them take what all have handed in to Redis, and those whose
answers came together take them one after the other. What that must not change: every thread gets its own answer, soon,
whatever the others do, and no job is lost or there twice.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.calling import wait_in_call
from tests.support.eventually import eventually
from tests.support.redisbox import RedisBox
from toromq import Connection, ParentNotFoundError, RedisConnectionError
from toromq.sync import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redispy

_PATIENCE = 20.0


@pytest.fixture
def queue(redisbox: RedisBox, prefix: str) -> Iterator[Queue[Any, Any]]:
    """A queue of its own."""
    with Queue[Any, Any]("q", connection=redisbox.url, prefix=prefix) as queue:
        yield queue


@pytest.fixture
def box() -> Iterator[RedisBox]:
    """A server that a test may stop."""
    with RedisBox() as box:
        yield box


class _Threads:
    """Threads that do the same, each with its number, and what went wrong in them."""

    def __init__(self, count: int, work: Callable[[int], Any]) -> None:
        self.errors: list[Exception] = []
        self._work = work
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        try:
            self._work(number)
        except Exception as error:
            self.errors.append(error)

    @property
    def are_alive(self) -> bool:
        """Whether any of them has something left to do."""
        return any(thread.is_alive() for thread in self._threads)

    def wait_in_call(self) -> None:
        """Wait until all of them wait for the engine."""
        wait_in_call(self._threads)

    def join(self) -> None:
        """Wait for their end; raises what the first one raised."""
        for thread in self._threads:
            thread.join(_PATIENCE)
        assert not self.are_alive
        if self.errors:
            raise self.errors[0]


def _waiting(redis: redispy.Redis, prefix: str) -> list[str]:
    return [str(one) for one in redis.lrange(f"{prefix}:q:wait", 0, -1)[::-1]]


# Of a hundred not all have a pipe to be woken through.
@pytest.mark.parametrize("count", [2, 5, 20, 60, 100])
def test_every_job_is_there_once_and_those_of_a_thread_in_its_order(
    queue: Queue[Any, Any], redis: redispy.Redis, prefix: str, count: int
) -> None:
    orders: dict[int, list[str]] = {number: [] for number in range(count)}

    def add(number: int) -> None:
        for n in range(40):
            job = queue.add("job", [number, n])
            assert (job.data, job.is_duplicate) == ([number, n], False)
            orders[number].append(job.id)

    _Threads(count, add).join()
    place = {job_id: n for n, job_id in enumerate(_waiting(redis, prefix))}
    assert len(place) == count * 40 == len({job_id for order in orders.values() for job_id in order})
    for number, order in orders.items():
        assert [place[job_id] for job_id in order] == sorted(place[job_id] for job_id in order)
        assert queue.get_job(order[-1]).data == [number, 39]  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [2, 20, 60, 100])
def test_no_thread_waits_for_what_another_does_with_its_answer(queue: Queue[Any, Any], count: int) -> None:
    """Each of them goes on when all have their answers, and comes back to the engine no earlier."""
    everybody = threading.Barrier(count)

    def add(number: int) -> None:
        for n in range(10):
            queue.add("job", n)
            everybody.wait(_PATIENCE)

    _Threads(count, add).join()


def test_every_thread_gets_the_answer_to_its_own_job(queue: Queue[Any, Any], redis: redispy.Redis, prefix: str) -> None:
    """In one call together: jobs with numbers and with ids of their own, duplicates, and some that are refused."""
    queue.add("job", job_id="taken")

    def add(number: int) -> None:
        for n in range(20):
            match number % 4:
                case 0:
                    assert queue.add("job").id.isdecimal()
                case 1:
                    assert queue.add("job", job_id=f"own-{number}-{n}").id == f"own-{number}-{n}"
                case 2:
                    job = queue.add("job", job_id="taken")
                    assert (job.id, job.is_duplicate) == ("taken", True)
                case 3:
                    with pytest.raises(ParentNotFoundError):
                        queue.add("job", parent={"id": f"none-{number}", "queue": f"{prefix}:q"})

    _Threads(40, add).join()
    waiting = _waiting(redis, prefix)
    assert len(waiting) == len(set(waiting)) == 1 + 20 * 20


def test_threads_and_bulks_that_take_several_calls(queue: Queue[Any, Any], redis: redispy.Redis, prefix: str) -> None:
    """Neither keeps the other waiting for ever, and each finds its own."""

    def add(number: int) -> None:
        if number < 3:
            for _ in range(3):
                jobs = queue.add_bulk([("job", [number, n]) for n in range(600)])
                assert [job.data for job in jobs] == [[number, n] for n in range(600)]
        else:
            for n in range(50):
                assert queue.add("job", n).data == n

    _Threads(43, add).join()
    waiting = _waiting(redis, prefix)
    assert len(waiting) == len(set(waiting)) == 3 * 3 * 600 + 40 * 50


def test_connections_that_are_killed_under_threads(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> None:
    """Whoever carries what others have handed in sends it again."""
    name = f"killed-{prefix}"
    connection = Connection(redisbox.url, client_name=name)
    ids: list[str] = []
    with Queue[Any, Any]("q", connection=connection, prefix=prefix) as queue:

        def add(number: int) -> None:
            for n in range(100):
                ids.append(queue.add("job", n).id)

        threads = _Threads(30, add)
        killed_at = 0
        while threads.are_alive:
            # Something gets through between two of them, on a slow machine as well.
            if len(ids) < killed_at + 200:
                threading.Event().wait(0.001)
                continue
            killed_at = len(ids)
            for client in redis.client_list():
                if client["name"] == name:
                    redis.client_kill_filter(_id=client["id"])
        threads.join()
    connection.close()
    assert killed_at > 0
    assert len(ids) == len(set(ids)) == len(_waiting(redis, prefix)) == 3000


def test_a_server_that_stands_still_is_told_to_every_thread(box: RedisBox, prefix: str) -> None:
    """When its time is over; and the threads after them are not held up by what became of these."""
    with Queue[Any, Any]("q", connection=Connection(box.url, command_timeout=500), prefix=prefix) as queue:
        queue.add("job", 0)
        os.kill(box.pid, signal.SIGSTOP)
        threads = _Threads(30, lambda number: queue.add("job", number))
        try:
            eventually(lambda: not threads.are_alive)
        finally:
            os.kill(box.pid, signal.SIGCONT)
        assert [type(error) for error in threads.errors] == [RedisConnectionError] * 30
        _Threads(30, lambda number: queue.add("job", number)).join()


@pytest.mark.parametrize("others", [1, 20, 40])
def test_ctrl_c_ends_the_wait_of_one_thread_and_no_other(box: RedisBox, prefix: str, others: int) -> None:
    """Whether that one waits for a call of another thread, or carries what others have handed in."""
    with Queue[Any, Any]("q", connection=box.url, prefix=prefix) as queue, box.client() as redis:
        queue.add("job", 0)
        os.kill(box.pid, signal.SIGSTOP)
        interrupt = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        try:
            threads = _Threads(others, lambda number: queue.add("job", number))
            threads.wait_in_call()
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                queue.add("job", 1)
        finally:
            os.kill(box.pid, signal.SIGCONT)
            interrupt.join()
        threads.join()
        # The answer to the call that was interrupted is not taken for one to this.
        last = queue.add("job", "last")
        assert (queue.get_job(last.id) or last).data == "last"
        eventually(lambda: len(_waiting(redis, prefix)) == others + 3)
        _Threads(others, lambda number: queue.add("job", number)).join()


def test_a_thread_that_ends_with_its_answer_lets_the_next_one_go(queue: Queue[Any, Any]) -> None:
    """Threads that add once each."""
    for _ in range(20):
        _Threads(30, lambda number: queue.add("job", number)).join()
    assert queue.count() == 600
