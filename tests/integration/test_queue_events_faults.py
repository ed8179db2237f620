"""Reading events while everything goes wrong. Claim: each event arrives once and in order, or it is said that some did
not; and no program hangs or crashes because of a reader."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.following import NAME, Stand, numbers
from tests.support.redisbox import RedisBox
from toromq import Connection, EventsLostError, RedisConnectionError, ToroError

if TYPE_CHECKING:
    import redis as redispy


@pytest_asyncio.fixture(params=[toromq, toromq.sync], ids=["toromq", "sync"])
async def stand(
    request: pytest.FixtureRequest, redisbox: RedisBox, redis: redispy.Redis, prefix: str
) -> AsyncIterator[Stand]:
    """The events of a queue on the shared server, read in each face."""
    made = Stand(request.param, redisbox.url, prefix, redis)
    yield made
    await made.close()


@pytest.fixture
def box() -> Iterator[RedisBox]:
    """A server that may be killed."""
    with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as started:
        yield started


@pytest_asyncio.fixture(params=[toromq, toromq.sync], ids=["toromq", "sync"])
async def mortal(request: pytest.FixtureRequest, box: RedisBox) -> AsyncIterator[Stand]:
    """The events of a queue on that server, read in each face."""
    made = Stand(request.param, box.url, "events", box.client())
    yield made
    await made.close()


# ==================================================================================================
# CONNECTIONS
# ==================================================================================================


class TestBrokenConnections:
    async def test_what_happened_while_the_reader_was_away_is_read_when_it_is_back(self, stand: Stand) -> None:
        events = await stand.started()
        errors = stand.errors(events)
        heard: list[Any] = []
        events.on("n", heard.append)
        loop = stand.loop(events)
        for part in range(8):
            await aeventually(lambda: [client["cmd"] for client in stand.readers()] == ["xread"])
            (reader,) = stand.readers()
            # All at one moment: the reader can't be back in between.
            pipe = stand.redis.pipeline(transaction=True)
            pipe.client_kill_filter(_id=reader["id"])
            for number in range(part * 600, part * 600 + 600):
                pipe.xadd(stand.key, {"event": "n", "number": number})
            pipe.execute()
        assert numbers(await loop.sees(4800)) == list(range(4800))
        assert numbers(heard) == list(range(4800))
        assert [type(error) for error in errors if isinstance(error, EventsLostError)] == []

    async def test_a_server_that_is_killed_and_comes_back(self, box: RedisBox, mortal: Stand) -> None:
        events = await mortal.started()
        errors = mortal.errors(events)
        loop = mortal.loop(events)
        mortal.add_many(300)
        await loop.sees(300)
        box.kill()
        await aeventually(lambda: errors)
        box.start()
        mortal.redis = box.client()
        mortal.add_many(300, 300)
        assert numbers(await loop.sees(600)) == list(range(600))
        assert {type(error) for error in errors} == {RedisConnectionError}

    async def test_a_server_that_stops_answering_and_goes_on(self, box: RedisBox, mortal: Stand) -> None:
        events = await mortal.started(connection=Connection(box.url, command_timeout=300), blocking_timeout=100)
        errors = mortal.errors(events)
        loop = mortal.loop(events)
        mortal.add_many(5)
        await loop.sees(5)
        box.pause()
        # Nothing was closed, so only a promise that was not kept tells of it.
        await aeventually(lambda: errors)
        box.unpause()
        mortal.add_many(5, 5)
        assert numbers(await loop.sees(10)) == list(range(10))
        assert {type(error) for error in errors} == {RedisConnectionError}

    async def test_who_is_behind_waits_for_redis_too(self, box: RedisBox, mortal: Stand) -> None:
        events = await mortal.started()
        slow, quick = mortal.loop(events), mortal.loop(events)
        slow.hold()
        mortal.add_many(4000)
        await quick.sees(4000)
        box.kill()
        slow.go_on()
        # It has had what was held for it.
        await aeventually(lambda: 900 < len(slow.seen) < 4000)
        box.start()
        assert numbers(await slow.sees(4000)) == list(range(4000))

    async def test_a_loop_that_is_behind_ends_at_the_close_while_redis_is_away(
        self, box: RedisBox, mortal: Stand
    ) -> None:
        events = await mortal.started()
        slow, quick = mortal.loop(events), mortal.loop(events)
        slow.hold()
        mortal.add_many(4000)
        await quick.sees(4000)
        box.kill()
        slow.go_on()
        await aeventually(lambda: len(slow.seen) > 900)
        await mortal.call(events.close)
        await aeventually(lambda: slow.ended)

    async def test_it_can_be_started_before_redis(self, box: RedisBox, mortal: Stand) -> None:
        box.kill()
        events = mortal.make(connection=Connection(box.url, command_timeout=100))
        errors = mortal.errors(events)
        # No longer than the time limit, and without an error: it goes on trying.
        await mortal.call(events.__aenter__ if mortal.face is toromq else events.__enter__)
        loop = mortal.loop(events)
        await aeventually(lambda: errors)
        box.start()
        await mortal.call(events.wait_until_ready)
        mortal.redis = box.client()
        mortal.add_many(3)
        assert numbers(await loop.sees(3)) == [0, 1, 2]

    async def test_closed_before_redis_answered(self, box: RedisBox, mortal: Stand) -> None:
        box.kill()
        events = mortal.make()
        events.on("error", lambda error: None)
        waiting = asyncio.ensure_future(mortal.call(events.wait_until_ready))
        await aeventually(events.is_running)
        await mortal.call(events.close)
        with pytest.raises(ToroError, match="before Redis answered"):
            await waiting
        box.start()


# ==================================================================================================
# ENTRIES THAT ARE GONE
# ==================================================================================================


class TestLostEntries:
    async def test_a_busy_stream_that_keeps_little_is_not_called_lossy(self, stand: Stand) -> None:
        events = await stand.started()
        errors = stand.errors(events)
        loop = stand.loop(events)
        for start in range(0, 6000, 100):
            stand.add_many(100, start)
            await loop.sees(start + 100)
            # Gone, every one of them, as soon as they were read.
            stand.redis.xtrim(stand.key, 0, approximate=False)
        stand.add_many(1, 6000)
        assert numbers(await loop.sees(6001)) == list(range(6001))
        assert errors == []

    async def test_what_was_trimmed_unread_is_told(self, stand: Stand) -> None:
        events = await stand.started()
        errors = stand.errors(events)
        loop = stand.loop(events)
        stand.add_many(5)
        last = (await loop.sees(5))[-1].id
        pipe = stand.redis.pipeline(transaction=True)
        for number in range(5, 50):
            pipe.xadd(stand.key, {"event": "n", "number": number}, maxlen=10, approximate=False)
        pipe.execute()
        assert numbers(await loop.sees(15)) == [*range(5), *range(40, 50)]
        await aeventually(lambda: errors)
        assert [(type(error), error.last_event_id <= last) for error in errors] == [(EventsLostError, True)]
        # Once is enough.
        stand.add_many(300, 50)
        await loop.sees(315)
        assert len(errors) == 1

    async def test_a_stream_that_was_deleted(self, stand: Stand) -> None:
        events = await stand.started(blocking_timeout=20)
        errors = stand.errors(events)
        loop = stand.loop(events)
        stand.add_many(5)
        await loop.sees(5)
        stand.redis.delete(stand.key)
        await aeventually(lambda: errors)
        stand.add_many(5, 5)
        assert numbers(await loop.sees(10)) == list(range(10))
        assert [type(error) for error in errors] == [EventsLostError]


# ==================================================================================================
# SLOW LISTENERS
# ==================================================================================================


async def test_listeners_that_wait_hold_up_the_reading_and_lose_nothing(
    redisbox: RedisBox, redis: redispy.Redis, prefix: str
) -> None:
    stand = Stand(toromq, redisbox.url, prefix, redis)
    events = await stand.started()
    free = asyncio.Event()
    begun: list[Any] = []

    async def listener(event: Any) -> None:
        begun.append(event)
        await free.wait()

    events.on("n", listener)
    stand.add_many(20_000)
    await aeventually(lambda: len(begun) >= 1000)
    await asyncio.sleep(0.2)
    assert len(begun) < 2000
    free.set()
    await aeventually(lambda: len(begun) == 20_000, 60)
    assert numbers(begun) == list(range(20_000))
    await stand.close()


# ==================================================================================================
# PROGRAMS
# ==================================================================================================


def _run(program: str, redisbox: RedisBox, prefix: str) -> str:
    """Runs a program, which must end by itself, and gives what it printed."""
    head = f"URL, PREFIX, NAME = {redisbox.url!r}, {prefix!r}, {NAME!r}\n"
    ended = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            """
            from toromq.sync import QueueEvents
            events = QueueEvents(NAME, connection=URL, prefix=PREFIX)
            events.on("n", print)
            events.wait_until_ready()
            print("done")
            """,
            id="left open",
        ),
        pytest.param(
            """
            import threading
            from toromq.sync import QueueEvents, QueueEventsProducer
            events = QueueEvents(NAME, connection=URL, prefix=PREFIX)
            def follow():
                for event in events:
                    break
                print("done")
            threading.Thread(target=follow).start()
            events.wait_until_ready()
            def publish():
                import time
                time.sleep(0.3)
                QueueEventsProducer(NAME, connection=URL, prefix=PREFIX).publish_event("n")
            threading.Thread(target=publish).start()
            """,
            id="a loop in a thread goes on after the main one",
        ),
        pytest.param(
            """
            import threading
            from toromq.sync import QueueEvents
            events = QueueEvents(NAME, connection=URL, prefix=PREFIX)
            threading.Thread(target=lambda: list(events), daemon=True).start()
            events.wait_until_ready()
            print("done")
            """,
            id="a loop in a daemon thread keeps no program",
        ),
        pytest.param(
            """
            import threading
            from toromq.sync import QueueEvents
            events = QueueEvents(NAME, connection=URL, prefix=PREFIX)
            def run():
                events.run()
                print("done")
            threading.Thread(target=run).start()
            events.wait_until_ready()
            threading.Timer(0.3, events.close).start()
            """,
            id="run in a thread goes on until the close",
        ),
        pytest.param(
            """
            import asyncio
            from toromq import QueueEvents
            async def main():
                events = QueueEvents(NAME, connection=URL, prefix=PREFIX)
                events.on("n", print)
                await events.wait_until_ready()
                task = asyncio.create_task(anext(aiter(events)))
                await asyncio.sleep(0.05)
                print("done")
            asyncio.run(main())
            """,
            id="a loop of asyncio that ends",
        ),
        pytest.param(
            """
            import asyncio
            from toromq import QueueEvents
            events = QueueEvents(NAME, connection=URL, prefix=PREFIX)
            asyncio.run(events.wait_until_ready())
            async def go_on():
                await anext(aiter(events))
            try:
                asyncio.run(go_on())
            except Exception as error:
                assert "another event loop; make a new one" in str(error), error
            asyncio.run(events.close())
            assert not events.is_running()
            print("done")
            """,
            id="another loop of asyncio",
        ),
        pytest.param(
            """
            import os, sys
            from toromq.sync import QueueEvents
            events = QueueEvents(NAME, connection=URL, prefix=PREFIX, last_event_id="0")
            iterator = iter(events)
            events.wait_until_ready()
            pid = os.fork()
            if pid == 0:
                assert not events.is_running()
                events.close()
                try:
                    next(iterator)
                except Exception as error:
                    assert "parent process" in str(error), error
                with QueueEvents(NAME, connection=URL, prefix=PREFIX) as own:
                    own.wait_until_ready()
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert events.is_running()
            events.close()
            print("done")
            """,
            id="a fork",
        ),
    ],
)
def test_programs_end(program: str, redisbox: RedisBox, prefix: str) -> None:
    assert _run(program, redisbox, prefix).split() == ["done"]


async def test_the_event_loop_is_never_blocked(redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> None:
    stand = Stand(toromq, redisbox.url, prefix, redis)
    stand.add_many(30_000)
    events = stand.make(last_event_id="0")
    heard: list[Any] = []
    events.on("n", heard.append)
    turns = 0
    await events.wait_until_ready()
    deadline = time.monotonic() + 60
    while len(heard) < 30_000 and time.monotonic() < deadline:
        turns += 1
        await asyncio.sleep(0)
    # A batch is no more than a few hundred.
    assert turns > 30_000 / 300
    await stand.close()


async def test_who_never_waits_long_gets_on_all_the_same(redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> None:
    stand = Stand(toromq, redisbox.url, prefix, redis)
    stand.add_many(600)
    events = stand.make(last_event_id="0")
    heard: list[Any] = []
    events.on("n", heard.append)
    await events.wait_until_ready()
    await aeventually(lambda: len(heard) == 600)
    # All of it is behind this one, to be read from the stream.
    iterator = aiter(events)
    seen: list[Any] = []

    async def has_all() -> bool:
        # Two at once, who go away again at once where there is nothing yet: what is read is for whoever comes next.
        while len(seen) < 600:
            asked = [asyncio.ensure_future(anext(iterator)) for _ in range(2)]
            await asyncio.sleep(0)
            for one in asked:
                one.cancel()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            found = [answer for answer in answers if not isinstance(answer, BaseException)]
            seen.extend(found)
            if not found:
                break
        return len(seen) == 600

    await aeventually(has_all)
    assert numbers(seen) == list(range(600))
    await stand.close()
