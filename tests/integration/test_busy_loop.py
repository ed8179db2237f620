"""An idle worker's wait is the event loop's business, but what the engine promises holds while that is busy or gone."""

from __future__ import annotations

import asyncio
import selectors
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually, eventually
from tests.support.place import Place
from toromq import _bridge

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

_PROGRAM = Path(__file__).parent / "programs" / "loops.py"
_PATIENCE = 60.0
# Of a lock, in milliseconds, and waits that are armed with it.
_LIFE = 1500
_SHORT: dict[str, Any] = {"lock_duration": _LIFE, "drain_delay": 0.4, "stalled_interval": 100}


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redis_py.Redis) -> AsyncIterator[Place]:
    made = Place(redisbox.url, prefix, redis)
    yield made
    await made.queue.close()


def _watched(loop: asyncio.AbstractEventLoop) -> set[int]:
    """The sockets that a loop watches."""
    selector: selectors.BaseSelector = loop._selector  # type: ignore[attr-defined]
    return {int(key) for key in selector.get_map()}


def _outlives_its_lock(place: Place, job_id: str) -> bool:
    """Whether a job is still locked after twice the time that its lock lives; the loop is busy with this meanwhile."""
    lock = place.key(f"{job_id}:lock")
    eventually(lambda: place.redis.exists(lock))
    until = time.monotonic() + 2 * _LIFE / 1000
    while time.monotonic() < until:
        if not place.redis.exists(lock):
            return False
        time.sleep(0.02)
    return True


async def _blocked(place: Place, block: Callable[[], None]) -> str:
    """Keeps the loop busy with that, out of the middle of a job, whose id it gives."""
    done: list[bool] = []
    failed: list[BaseException] = []

    def noted() -> None:
        try:
            block()
        except BaseException as error:
            failed.append(error)
        done.append(True)

    place.block = noted
    job = await place.queue.add("blocks")
    await aeventually(lambda: done, _PATIENCE)
    for error in failed:
        raise error
    return str(job.id)


async def test_the_loop_watches_the_wait_and_forgets_it_at_the_end(place: Place) -> None:
    loop = asyncio.get_running_loop()
    await place.queue.add("n")
    async with place.worker():
        await aeventually(place.runs.total)
    await aeventually(lambda: not place.client().get("id"))
    before = _watched(loop)
    for _ in range(3):
        async with place.worker("a"), place.worker("b"):
            await place.asleep("a", "b")
            await aeventually(lambda: len(_watched(loop)) == len(before) + 2)
            # And so it does when a connection was lost.
            place.redis.client_kill_filter(_id=place.client("a")["id"])
            await place.asleep("a", "b")
            await aeventually(lambda: len(_watched(loop)) == len(before) + 2)
        await aeventually(lambda: _watched(loop) == before)


async def test_the_loop_itself_reads_what_it_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[bool] = []
    by_loop: list[bool] = []
    waited = _bridge.Port._waited

    def note_waited(*arguments: Any) -> None:
        inside.append(True)
        waited(*arguments)
        inside.clear()

    monkeypatch.setattr(_bridge.Port, "_waited", note_waited)
    worker = place.worker()
    receive = worker._receive

    def note_jobs(message: tuple[str, Any]) -> None:
        if message[0] == "jobs":
            by_loop.append(bool(inside))
        receive(message)

    monkeypatch.setattr(worker, "_receive", note_jobs)
    async with worker:

        async def add() -> bool:
            await place.asleep()
            ran = place.runs.total()
            await place.queue.add("n")
            await aeventually(lambda: place.runs.total() > ran)
            return by_loop[-1]

        # The engine may look for it in the same moment, but not each time.
        await aeventually(add)


async def test_a_job_that_comes_while_the_loop_is_busy_keeps_its_lock(place: Place) -> None:
    others: list[str] = []
    kept: list[bool] = []
    stalled: list[str] = []

    def block() -> None:
        eventually(place.is_asleep)
        others.extend(place.add_beside())
        kept.append(_outlives_its_lock(place, others[0]))

    worker = place.worker(concurrency=2, **_SHORT)
    worker.on("stalled", stalled.append)
    async with worker:
        job = await _blocked(place, block)
        await place.all_completed([job, *others])
    assert (kept, stalled, place.errors) == ([True], [], [])


async def test_a_connection_that_is_lost_while_the_loop_is_busy_is_made_again(place: Place) -> None:
    others: list[str] = []
    kept: list[bool] = []

    def block() -> None:
        for _ in range(3):
            eventually(place.is_asleep)
            before = place.client()["id"]
            place.redis.client_kill_filter(_id=before)
            eventually(lambda before=before: place.is_asleep() and place.client().get("id", before) != before)
        others.extend(place.add_beside())
        eventually(lambda: len(place.stored("active")) == 2)
        kept.append(_outlives_its_lock(place, others[0]))

    async with place.worker(concurrency=2, **_SHORT):
        job = await _blocked(place, block)
        await place.all_completed([job, *others])
        assert kept == [True]
        await place.asleep()


async def test_a_pause_counts_although_the_loop_is_busy(place: Place) -> None:
    async with place.worker(concurrency=2) as worker:
        await place.asleep()
        before = place.client()["id"]
        pausing = asyncio.ensure_future(worker.pause())
        # It has begun, and can't go on.
        await asyncio.sleep(0)
        eventually(lambda: place.client().get("id") != before)
        others = place.add_beside(3)
        assert (place.stored("active"), sorted(place.stored("wait"))) == ([], sorted(others))
        await pausing
        await worker.resume()
        await place.all_completed(others)
    assert place.errors == []


async def test_a_lower_concurrency_counts_although_the_loop_is_busy(place: Place) -> None:
    place.gate.clear()
    async with place.worker(concurrency=5) as worker:
        await place.asleep()
        before = place.client()["id"]
        worker.concurrency = 2
        eventually(lambda: place.is_asleep() and place.client().get("id", before) != before)
        others = place.add_beside(4)
        eventually(lambda: place.stored("active"))
        assert len(place.stored("active")) <= 2
        await aeventually(lambda: place.running["w"] == 2)
        assert len(place.stored("active")) == 2
        place.gate.set()
        await place.all_completed(others)
        assert place.most["w"] == 2
    assert place.errors == []


@pytest.mark.parametrize("force", [False, True])
async def test_a_close_counts_although_the_loop_is_busy(place: Place, force: bool) -> None:
    worker = place.worker(concurrency=2)
    await worker.__aenter__()
    await place.asleep()
    closing = asyncio.ensure_future(worker.close(force=force))
    # It is told after a turn or two, none of which is a wait for the server.
    for _ in range(5):
        await asyncio.sleep(0)
    # The engine is at its end before the loop hears of it.
    eventually(lambda: not place.client().get("id"))
    others = place.add_beside(3)
    assert (place.stored("active"), sorted(place.stored("wait"))) == ([], sorted(others))
    await closing
    async with place.worker():
        await place.all_completed(others)


def test_a_loop_that_stands_still_goes_on_where_it_was(redisbox: RedisBox, prefix: str, redis: redis_py.Redis) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        async def make() -> Place:
            return Place(redisbox.url, prefix, redis)

        place = runner.run(make())
        worker = place.worker(concurrency=2, **_SHORT)
        loop.run_until_complete(worker.__aenter__())
        loop.run_until_complete(place.asleep())
        others = place.add_beside()
        assert _outlives_its_lock(place, others[0])
        assert place.runs.total() == 0
        others += place.add_beside()
        loop.run_until_complete(place.all_completed(others))
        loop.run_until_complete(worker.close())
        loop.run_until_complete(place.queue.close())


@pytest.mark.parametrize("how", ["stopped", "closed", "forgotten", "ended", "busy"])
def test_a_program_ends_and_loses_no_job_when_its_loop_runs_no_more(
    redisbox: RedisBox, prefix: str, redis: redis_py.Redis, how: str
) -> None:
    place = Place(redisbox.url, prefix, redis)
    command = [sys.executable, str(_PROGRAM), how, redisbox.url, prefix]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stopped\n"
            # A worker whose loop has ended in order has ended with it, as has one that is nobody's.
            has_ended = how in ("ended", "forgotten")
            eventually(lambda: place.client()["cmd"] == "" if has_ended else place.is_asleep())
            (job,) = place.add_beside()
            if not has_ended:
                # The armed fetch has brought it, to nobody.
                assert place.stored("active") == [job]
            output, errors = process.communicate("\n", _PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, output) == (0, "")
    assert "Traceback" not in errors
    # What the engine's look (once a second) has read for a loop that runs no more is locked until that runs out.
    held = place.stored("active")
    assert held + place.stored("wait") == [job]
    assert redis.exists(place.key(f"{job}:lock")) == len(held)
