"""How the engine's answers reach coroutines."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.eventually import eventually
from tests.support.redisbox import RedisBox
from toromq import Queue, _bridge


class Loop:
    """A queue on a loop that is ready, and what has arrived for it."""

    def __init__(self, queue: Queue[Any, Any], client: redis.Redis) -> None:
        self.port = _bridge.port()
        self.native = queue._native()
        self.client = client
        self.sent = self.done()

    def done(self) -> int:
        stats: dict[str, Any] = self.client.info("commandstats")
        return int(stats.get("cmdstat_hgetall", {}).get("calls", 0))

    def send(self, receiver: Any) -> int:
        """Ask for something that `receiver` gets; gives the ticket."""
        self.sent += 1
        ticket, _ = self.port.attach(receiver, self.native.get_meta)
        return ticket

    def ask(self) -> Any:
        """The same for a coroutine to await."""
        self.sent += 1
        return self.port.call(self.native.get_meta)

    def arrived(self) -> None:
        """Wait until all answers lie in the sockets, while the loop does nothing."""
        eventually(lambda: self.done() == self.sent)
        self.client.ping()


@pytest.fixture
async def loop(redisbox: RedisBox, redis: redis.Redis, prefix: str) -> Any:
    async with Queue("q", connection=redisbox.url, prefix=prefix) as queue:
        await queue.wait_until_ready()
        yield Loop(queue, redis)


@pytest.fixture(params=[None, asyncio.tasks._PyTask])  # type: ignore[attr-defined]
def task_factory(request: pytest.FixtureRequest) -> Any:
    kind = request.param
    return kind and (lambda loop, coroutine, context=None: kind(coroutine, loop=loop, context=context))


@pytest.mark.parametrize("raised", [KeyError, SystemExit])
async def test_who_raises_keeps_nothing_from_others(loop: Loop, raised: type[BaseException]) -> None:
    heard: list[str] = []
    told = asyncio.Event()

    def bad(_: Any) -> None:
        raise raised

    def good(_: Any) -> None:
        heard.append("it")
        if len(heard) == 3:
            told.set()

    tickets = [loop.send(receiver) for receiver in (bad, good, bad, good)]
    loop.arrived()
    for _ in range(2):
        with pytest.raises(raised):
            loop.port.deliver()
    loop.port.deliver()
    assert len(heard) == 2
    # The loop itself comes back to it, so that nobody has to ask.
    tickets += [loop.send(receiver) for receiver in (bad, good)]
    loop.arrived()
    with pytest.raises(raised):
        loop.port.deliver()
    await told.wait()
    for ticket in tickets:
        loop.port.detach(ticket)


async def test_a_coroutine_goes_on_in_the_turn_that_brings_its_answer(loop: Loop, task_factory: Any) -> None:
    running = asyncio.get_running_loop()
    running.set_task_factory(task_factory)
    order: list[str] = []

    async def asks(name: str) -> None:
        await loop.ask()
        order.append(name)
        await asyncio.sleep(0)
        order.append(f"{name}, a turn later")

    tasks = [running.create_task(asks(name)) for name in ("a", "b")]
    await asyncio.sleep(0)
    ticket = loop.send(lambda _: running.call_soon(order.append, "the next turn"))
    last = running.create_task(asks("c"))
    await asyncio.sleep(0)
    loop.arrived()
    await asyncio.gather(*tasks, last)
    assert order[:3] == ["a", "b", "c"]
    assert order[3] == "a, a turn later"
    assert "the next turn" in order[3:6]
    loop.port.detach(ticket)


async def test_within_a_task_no_other_one_goes_on(loop: Loop, task_factory: Any) -> None:
    running = asyncio.get_running_loop()
    running.set_task_factory(task_factory)
    task = running.create_task(_value_of(loop))
    await asyncio.sleep(0)
    loop.arrived()
    loop.port.deliver()
    assert not task.done()
    assert await task == {}


async def _value_of(loop: Loop) -> Any:
    return dict(await loop.ask()) and {}


async def test_who_is_cancelled_gets_no_answer(loop: Loop, task_factory: Any) -> None:
    running = asyncio.get_running_loop()
    running.set_task_factory(task_factory)

    async def asks() -> None:
        await loop.ask()
        raise AssertionError("it was cancelled before")

    for is_there in (False, True):
        task = running.create_task(asks())
        await asyncio.sleep(0)
        if is_there:
            loop.arrived()
        task.cancel("no longer wanted")
        assert task.cancelling() == 1
        if is_there:
            loop.port.deliver()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        assert raised.value.args in {("no longer wanted",), ()}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await loop.ask()
    assert await loop.ask() is not None


async def test_an_answer_that_is_there_is_not_lost_to_a_cancellation_that_comes_later(loop: Loop) -> None:
    async def asks() -> str:
        await loop.ask()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "cancelled afterwards"
        return ""

    task = asyncio.ensure_future(asks())
    await asyncio.sleep(0)
    loop.arrived()
    # In the turn that follows this one the answer is there before this task goes on.
    await loop.ask()
    task.cancel()
    assert await task == "cancelled afterwards"


async def test_what_was_awaited_says_so(loop: Loop) -> None:
    answer = loop.ask()
    await answer
    with pytest.raises(RuntimeError, match="awaited once"):
        await answer
    answer = loop.ask()
    first, second = asyncio.ensure_future(_await(answer)), asyncio.ensure_future(_await(answer))
    with pytest.raises(RuntimeError, match="awaited once"):
        await second
    await first


async def _await(answer: Any) -> Any:
    return await answer


@pytest.fixture
def collected() -> Iterator[list[weakref.ref[Any]]]:
    """What must be gone in the end."""
    references: list[weakref.ref[Any]] = []
    yield references
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_a_loop_that_is_gone_leaves_nothing(
    redisbox: RedisBox, prefix: str, collected: list[weakref.ref[Any]]
) -> None:
    async def main() -> None:
        queue: Queue[Any, Any] = Queue("q", connection=redisbox.url, prefix=prefix)
        await queue.wait_until_ready()
        port = _bridge.port()
        # Nobody ends these two, and each holds the other.
        event = asyncio.Event()

        async def waits() -> None:
            asyncio.get_running_loop()._waiting = answers  # type: ignore[attr-defined]
            event.set()
            await answers[0]

        answers = [port.call(lambda port, ticket: None)]
        task = asyncio.get_running_loop().create_task(waits())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        await event.wait()
        await asyncio.sleep(0)
        collected.extend([weakref.ref(port), weakref.ref(task), weakref.ref(asyncio.get_running_loop())])

    def run() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


async def test_who_only_reads_keeps_its_connection(loop: Loop) -> None:
    def made() -> int:
        stats: dict[str, Any] = loop.client.info("stats")
        return int(stats["total_connections_received"])

    before = made()
    for _ in range(5):
        await loop.ask()
    assert made() == before
