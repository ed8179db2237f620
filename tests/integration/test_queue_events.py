"""The events of a queue, in both faces: who hears of what, in which form, from when on, until when."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.following import NAME, Stand, numbers
from toromq import ConfigurationError, EventError, EventsLostError, Queue, ToroError, Worker
from toromq.events import CompletedEvent, CustomEvent, FailedEvent, ProgressEvent, QueueEvent

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox


@pytest.fixture(params=[toromq, toromq.sync], ids=["toromq", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    """Each face."""
    return request.param


@pytest_asyncio.fixture
async def stand(face: Any, redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> AsyncIterator[Stand]:
    """The events of a queue, read in each face."""
    made = Stand(face, redisbox.url, prefix, redis)
    yield made
    await made.close()


# ==================================================================================================
# WHO HEARS
# ==================================================================================================


class TestListeners:
    async def test_what_a_worker_does_is_heard(self, stand: Stand) -> None:
        events = await stand.started()
        heard: dict[str, list[Any]] = {"completed": [], "failed": [], "progress": []}
        for name, told in heard.items():
            events.on(name, told.append)

        async def process(job: Any) -> Any:
            await job.update_progress({"half": True})
            if job.name == "bad":
                raise ValueError("why")
            return [job.data]

        async with Queue(NAME, **stand.options) as queue, Worker(NAME, process, **stand.options):
            good, bad = await queue.add_bulk([("good", 7), ("bad", 8)])
            await aeventually(lambda: heard["completed"] and heard["failed"])
        (completed,), (failed,) = heard["completed"], heard["failed"]
        assert completed == CompletedEvent(completed.id, good.id, [7], "active")
        assert failed == FailedEvent(failed.id, bad.id, "why", "active")
        assert [type(event) for event in heard["progress"]] == [ProgressEvent, ProgressEvent]
        assert heard["progress"][0].data == {"half": True}
        assert abs(completed.timestamp - time.time() * 1000) < 600_000

    async def test_once_and_off(self, stand: Stand) -> None:
        events = await stand.started()
        first: list[Any] = []
        never: list[Any] = []
        ends: list[Any] = []
        events.once("n", first.append)
        events.on("n", never.append)
        events.once("n", never.append)
        events.off("n", never.append)
        events.off("n", never.append)
        events.on("end", ends.append)
        stand.add_many(3)
        stand.add("end")
        await aeventually(lambda: ends)
        assert (numbers(first), never) == ([0], [])

    async def test_events_of_one_job_have_a_channel(self, stand: Stand) -> None:
        events = await stand.started()
        by_option: list[Any] = []
        by_text: list[Any] = []
        gone: list[Any] = []
        ends: list[Any] = []
        events.on("failed", by_option.append, job_id="2")
        events.once("failed:2", by_text.append)
        events.on("failed", gone.append, job_id="2")
        events.off("failed", gone.append, job_id="2")
        events.on("end", ends.append)
        for job_id in ("1", "2", "22", "2"):
            stand.add("failed", jobId=job_id, failedReason="r")
        stand.add("end")
        await aeventually(lambda: ends)
        assert [event.job_id for event in by_option] == ["2", "2"]
        assert ([event.job_id for event in by_text], gone) == (["2"], [])

    async def test_a_listener_that_raises_stops_nobody(self, stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
        events = await stand.started()
        heard: list[Any] = []

        @events.on("n")
        def broken(event: Any) -> None:
            raise ValueError("broken listener")

        events.on("n", heard.append)
        stand.add_many(2)
        await aeventually(lambda: len(heard) == 2)
        assert caplog.text.count("ValueError: broken listener") == 2

    async def test_a_listener_may_close_its_reader(self, stand: Stand) -> None:
        events = await stand.started()
        heard: list[Any] = []

        def close(event: Any) -> None:
            heard.append(event)
            if stand.face is not toromq:
                events.close()

        async def close_later(event: Any) -> None:
            close(event)
            await events.close()

        events.on("n", close_later if stand.face is toromq else close)
        stand.add("n", number=1)
        await aeventually(lambda: not events.is_running())
        stand.add("n", number=2)
        await aeventually(lambda: not stand.readers())
        assert numbers(heard) == [1]

    def test_what_can_be_listened_to(self, stand: Stand) -> None:
        events = stand.make()
        for name, words in (
            ("", "got ''"),
            (5, "allowed is a text"),
            ("waiting_children", "did you mean 'waiting-children'"),
            ("retries_exhausted", "did you mean 'retries-exhausted'"),
        ):
            with pytest.raises(ConfigurationError, match=words):
                events.on(name, print)
        with pytest.raises(ConfigurationError, match="allowed is a function"):
            events.on("completed", "print")
        with pytest.raises(ConfigurationError, match="job_id"):
            events.on("completed", print, job_id=7)
        for name in ("cleaned", "drained", "error", "paused", "resumed"):
            with pytest.raises(ConfigurationError, match=f"job_id: got '7'; '{name}' tells of no job"):
                events.on(name, print, job_id="7")

    def test_nothing_would_await_a_listener_in_the_blocking_face(self) -> None:
        async def listener(event: Any) -> None: ...

        with pytest.raises(ConfigurationError, match=r"toromq\.QueueEvents"):
            toromq.sync.QueueEvents(NAME).on("completed", listener)

    async def test_async_listeners_hear_in_order(self, redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> None:
        stand = Stand(toromq, redisbox.url, prefix, redis)
        heard: list[Any] = []
        events = await stand.started()

        async def listener(event: Any) -> None:
            heard.append(event)

        events.on("n", listener)
        stand.add_many(700)
        await aeventually(lambda: len(heard) == 700)
        assert numbers(heard) == list(range(700))
        await stand.close()


class TestLoops:
    async def test_many_loops_and_listeners_hear_all(self, stand: Stand) -> None:
        events = await stand.started()
        heard: list[Any] = []
        events.on("n", heard.append)
        loops = [stand.loop(events) for _ in range(5)]
        stand.add_many(3000)
        for loop in loops:
            assert numbers(await loop.sees(3000)) == list(range(3000))
        assert numbers(heard) == list(range(3000))
        assert len(stand.readers()) == 1

    async def test_events_can_be_matched(self, stand: Stand) -> None:
        events = stand.make(last_event_id="0")
        stand.add("completed", jobId="1", returnvalue='{"x": 1}', prev="active")
        stand.add("failed", jobId="2", failedReason="why", prev="active")
        stand.add("shipped", to="her")
        said: list[Any] = []
        for event in await stand.loop(events, 3).sees(3):
            assert isinstance(event, QueueEvent)
            match event:
                case CompletedEvent(job_id=job_id, returnvalue=value):
                    said.append((job_id, value))
                case FailedEvent(job_id=job_id, failed_reason=reason):
                    said.append((job_id, reason))
                case CustomEvent(name="shipped", fields=fields):
                    said.append(fields)
        assert said == [("1", {"x": 1}), ("2", "why"), {"to": "her"}]

    async def test_a_loop_starts_the_reader(self, stand: Stand) -> None:
        stand.add_many(3)
        loop = stand.loop(stand.make(last_event_id="0-0"))
        assert numbers(await loop.sees(3)) == [0, 1, 2]

    async def test_a_loop_begins_with_what_happens_next(self, stand: Stand) -> None:
        events = await stand.started()
        first = stand.loop(events)
        stand.add_many(2)
        await first.sees(2)
        second = stand.loop(events)
        stand.add_many(2, 2)
        assert numbers(await first.sees(4)) == [0, 1, 2, 3]
        assert numbers(await second.sees(2)) == [2, 3]

    async def test_a_loop_begins_after_the_id_that_was_given_whenever_it_is_made(self, stand: Stand) -> None:
        stand.add_many(1000)
        middle = stand.add("n", number=1000)
        stand.add_many(700, 1001)
        events = stand.make(last_event_id=middle)
        first = stand.loop(events)
        await first.sees(700)
        second = stand.loop(events)
        stand.add_many(1000, 1701)
        for loop in (first, second):
            assert numbers(await loop.sees(1700)) == list(range(1001, 2701))
        # As if nothing had been special about it.
        stand.add_many(10, 2701)
        assert numbers(await second.sees(1710)) == list(range(1001, 2711))

    async def test_who_comes_back_goes_on_after_what_it_saw(self, stand: Stand) -> None:
        for options in ({}, {"last_event_id": "0"}):
            stand.redis.delete(stand.key)
            stand.add_many(300)
            seen = stand.add("n", number=300)
            stand.add_many(700, 301)
            # Before it listens, and after.
            events = stand.make(**options)
            first = stand.loop(events.after(seen))
            await stand.call(events.wait_until_ready)
            second = stand.loop(events.after(seen))
            stand.add_many(500, 1001)
            for loop in (first, second):
                assert numbers(await loop.sees(1200)) == list(range(301, 1501))
            stand.add_many(1, 1501)
            for loop in (first, second):
                assert numbers(await loop.sees(1201))[-1] == 1501
            assert numbers(await stand.loop(events.after("0")).sees(1502)) == list(range(1502))
            await stand.call(events.close)
            assert len(stand.readers()) <= 1

    def test_an_id_to_go_on_after_that_is_none(self, stand: Stand) -> None:
        for given in ("$", "x", 5):
            with pytest.raises(ConfigurationError, match="event_id"):
                stand.make().after(given)

    async def test_a_loop_that_is_left_holds_up_nobody(self, stand: Stand) -> None:
        events = await stand.started()
        left = stand.loop(events, 1)
        other = stand.loop(events)
        stand.add_many(1)
        await left.sees(1)
        await aeventually(lambda: left.ended)
        gc.collect()
        assert len(events._followers) == 1
        stand.add_many(5000, 1)
        assert numbers(await other.sees(5001)) == list(range(5001))

    async def test_a_slow_loop_misses_nothing_and_holds_up_nobody(self, stand: Stand) -> None:
        events = await stand.started()
        slow, quick = stand.loop(events), stand.loop(events)
        slow.hold()
        stand.add_many(8000)
        assert numbers(await quick.sees(8000)) == list(range(8000))
        kept = [follower for follower in events._followers if follower._is_behind]
        # What it does not hold is in the stream.
        assert [len(follower._untaken) <= 1500 for follower in kept] == [True]
        slow.go_on()
        assert numbers(await slow.sees(8000)) == list(range(8000))
        stand.add_many(2000, 8000)
        assert numbers(await slow.sees(10_000)) == list(range(10_000))
        assert numbers(await quick.sees(10_000)) == list(range(10_000))

    async def test_a_slow_loop_is_told_what_it_missed(self, stand: Stand) -> None:
        events = await stand.started()
        errors = stand.errors(events)
        slow, quick = stand.loop(events), stand.loop(events)
        slow.hold()
        stand.add_many(4000)
        await quick.sees(4000)
        assert errors == []
        stand.redis.xtrim(stand.key, 100, approximate=False)
        slow.go_on()
        await aeventually(lambda: slow.seen and slow.seen[-1].fields["number"] == "3999")
        seen = numbers(slow.seen)
        held = seen.index(3900)
        assert seen == [*range(held), *range(3900, 4000)]
        (lost,) = errors
        assert isinstance(lost, EventsLostError)
        assert lost.last_event_id == slow.seen[held - 1].id

    async def test_all_loops_end_at_the_close(self, stand: Stand) -> None:
        events = await stand.started()
        loops = [stand.loop(events) for _ in range(3)]
        stand.add_many(2)
        for loop in loops:
            await loop.sees(2)
        await stand.call(events.close)
        await aeventually(lambda: all(loop.ended for loop in loops))
        assert [loop.error for loop in loops] == [None] * 3
        assert stand.loop(events).seen == []

    async def test_an_item_that_was_given_up_waiting_for_is_not_lost(
        self, redisbox: RedisBox, redis: redispy.Redis, prefix: str
    ) -> None:
        stand = Stand(toromq, redisbox.url, prefix, redis)
        events = await stand.started()
        iterator = aiter(events)
        taken: list[Any] = []
        for start in range(0, 300, 10):
            stand.add_many(10, start)
            while len(taken) < start + 10:
                waiting = asyncio.ensure_future(anext(iterator))
                await asyncio.sleep(0)
                if len(taken) % 3 == 0 and not waiting.done():
                    waiting.cancel()
                    await asyncio.wait([waiting])
                else:
                    await waiting
                if not waiting.cancelled():
                    taken.append(waiting.result())
        assert numbers(taken) == list(range(300))
        await stand.close()


# ==================================================================================================
# FROM WHEN ON, AND UNTIL WHEN
# ==================================================================================================


class TestLife:
    async def test_making_one_does_nothing(self, stand: Stand) -> None:
        events = stand.make()
        events.on("completed", print)
        assert not events.is_running()
        assert stand.readers() == []
        await stand.call(events.close)
        await stand.call(events.disconnect)
        with pytest.raises(ToroError, match="make a new one"):
            await stand.call(events.run)

    async def test_it_listens_within_a_with_block(self, stand: Stand) -> None:
        events = stand.make()
        heard: list[Any] = []
        events.on("n", heard.append)
        assert (await stand.call(events.__aenter__ if stand.face is toromq else events.__enter__)) is events
        stand.add_many(1)
        await aeventually(lambda: heard)
        assert events.is_running()
        (reader,) = stand.readers()
        assert reader["name"].endswith(":qe")
        await stand.call(*([events.__aexit__] if stand.face is toromq else [events.__exit__]), None, None, None)
        assert not events.is_running()
        await aeventually(lambda: not stand.readers())

    async def test_run_returns_at_the_close(self, stand: Stand) -> None:
        events = stand.make()
        running = asyncio.ensure_future(stand.call(events.run))
        await aeventually(events.is_running)
        await stand.call(events.close)
        await running

    def test_a_close_while_another_thread_starts_it_ends_it(self, redisbox: RedisBox, prefix: str) -> None:
        begun, go_on = threading.Event(), threading.Event()

        class Slow(toromq.sync.QueueEvents[Any]):
            def _start(self, port: Any) -> None:
                begun.set()
                assert go_on.wait(20)
                super()._start(port)

        events = Slow("q", connection=redisbox.url, prefix=prefix)
        running = threading.Thread(target=events.run, daemon=True)
        closing = threading.Thread(target=events.close, daemon=True)
        running.start()
        assert begun.wait(20)
        closing.start()
        # It may not come back before there is something to close; whether it does, the end shows.
        closing.join(0.1)
        go_on.set()
        for thread in (closing, running):
            thread.join(20)
            assert not thread.is_alive()

    async def test_it_goes_on_after_an_id(self, stand: Stand) -> None:
        stand.add_many(1)
        last = stand.add("n", number=1)
        stand.add_many(1, 2)
        events = stand.make(last_event_id=last)
        heard: list[Any] = []
        events.on("n", heard.append)
        assert events.last_event_id == last
        await stand.call(events.wait_until_ready)
        await aeventually(lambda: numbers(heard) == [2])
        assert events.last_event_id == heard[0].id

    @pytest.mark.parametrize("given", ["0", "0-0"])
    async def test_it_begins_with_the_oldest(self, stand: Stand, given: str) -> None:
        stand.add_many(600)
        stand.redis.xtrim(stand.key, 300, approximate=False)
        events = stand.make(last_event_id=given)
        errors = stand.errors(events)
        loop = stand.loop(events)
        assert numbers(await loop.sees(300)) == list(range(300, 600))
        stand.add_many(1, 600)
        await loop.sees(301)
        # What went before was not unread.
        assert errors == []

    async def test_it_begins_with_a_moment(self, stand: Stand) -> None:
        stand.redis.xadd(stand.key, {"event": "n", "number": 0}, id="1000-0")
        stand.redis.xadd(stand.key, {"event": "n", "number": 1}, id="3000-0")
        events = stand.make(last_event_id="2000")
        errors = stand.errors(events)
        loop = stand.loop(events)
        assert numbers(await loop.sees(1)) == [1]
        assert loop.seen[0].timestamp == 3000
        stand.add_many(1, 2)
        await loop.sees(2)
        assert errors == []

    async def test_a_start_that_was_trimmed_is_told(self, stand: Stand) -> None:
        first = stand.add("n", number=0)
        stand.add_many(5, 1)
        stand.redis.xtrim(stand.key, 2, approximate=False)
        events = stand.make(last_event_id=first)
        errors = stand.errors(events)
        # One that gets what all get, and one that reads for itself: it is said once.
        loops = [stand.loop(events)]
        await loops[0].sees(2)
        loops.append(stand.loop(events))
        for loop in loops:
            assert numbers(await loop.sees(2)) == [4, 5]
        assert [(type(error), error.last_event_id) for error in errors] == [(EventsLostError, first)]

    @pytest.mark.parametrize("given", ["", "now", "-1", "1-", "1-2-3", 5, None, "$ "])
    def test_an_id_that_is_none(self, given: Any) -> None:
        with pytest.raises(ConfigurationError, match="last_event_id"):
            toromq.QueueEvents(NAME, last_event_id=given)

    def test_options(self) -> None:
        for options, words in (
            ({"blocking_timeout": 0}, "1 or more"),
            ({"prefix": ""}, "prefix"),
            ({"result_type": 5}, "result_type"),
            ({"connection": 5}, "connection"),
        ):
            with pytest.raises(ConfigurationError, match=words):
                toromq.QueueEvents(NAME, **options)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="did you mean 'last_event_id'"):
            toromq.QueueEvents(NAME, last_even_id="0")  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="queue name"):
            toromq.QueueEvents("a:b")
        assert "mail" in repr(toromq.QueueEvents(NAME))

    async def test_a_short_silence_changes_nothing(self, stand: Stand) -> None:
        events = await stand.started(blocking_timeout=1)
        loop = stand.loop(events)
        for number in range(30):
            stand.add_many(1, number)
            await loop.sees(number + 1)
        assert numbers(loop.seen) == list(range(30))

    async def test_no_thread_is_left(self, stand: Stand) -> None:
        before = set(threading.enumerate())
        events = await stand.started()
        stand.loop(events)
        await stand.close()
        await aeventually(lambda: not {t for t in set(threading.enumerate()) - before if "toromq" in t.name})


# ==================================================================================================
# WHAT IS WRITTEN THERE
# ==================================================================================================


@pytest.mark.leaves_keys_broken("the entries are bad on purpose")
class TestBadEntries:
    BAD = (
        ("completed", {"jobId": "1", "returnvalue": "{"}),
        ("completed", {"jobId": "1", "returnvalue": ""}),
        ("completed", {"returnvalue": "1"}),
        ("progress", {"jobId": "1", "data": ""}),
        ("progress", {"jobId": "1", "data": "nope"}),
        ("progress", {"jobId": "1"}),
        ("failed", {"jobId": "1"}),
        ("delayed", {"jobId": "1", "delay": "soon"}),
        ("cleaned", {}),
        ("cleaned", {"count": "1.5"}),
        ("retries-exhausted", {"jobId": "1", "attemptsMade": "x"}),
        ("deduplicated", {"jobId": "1"}),
    )

    async def test_they_are_passed_over_and_told(self, stand: Stand) -> None:
        events = await stand.started()
        errors = stand.errors(events)
        heard: list[Any] = []
        events.on("completed", heard.append)
        loop = stand.loop(events)
        ids = []
        for number, (name, fields) in enumerate(self.BAD):
            ids.append(stand.add(name, **fields))
            stand.add_many(1, number)
        stand.add("completed", jobId="2", returnvalue="true")
        await loop.sees(len(self.BAD) + 1)
        assert numbers(loop.seen[:-1]) == list(range(len(self.BAD)))
        assert [event.returnvalue for event in heard] == [True]
        assert [(type(error), error.event_id, error.event) for error in errors] == [
            (EventError, id, name) for id, (name, _) in zip(ids, self.BAD, strict=True)
        ]
        assert all(error.__cause__ is not None and error.event_id in str(error) for error in errors)

    async def test_without_a_listener_they_are_logged(self, stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
        loop = stand.loop(await stand.started())
        stand.add("progress", jobId="1", data="{")
        stand.add_many(1)
        await loop.sees(1)
        assert "progress" in caplog.text

    async def test_who_is_behind_does_not_tell_of_them_again(self, stand: Stand) -> None:
        stand.add("progress", jobId="1", data="{")
        stand.add_many(10)
        events = stand.make(last_event_id="0")
        errors = stand.errors(events)
        await stand.loop(events).sees(10)
        assert numbers(await stand.loop(events).sees(10)) == list(range(10))
        assert len(errors) == 1

    async def test_an_entry_without_a_name_is_no_event(self, stand: Stand) -> None:
        loop = stand.loop(await stand.started())
        stand.redis.xadd(stand.key, {"jobId": "1"})
        stand.add_many(1)
        assert numbers(await loop.sees(1)) == [0]

    async def test_an_event_named_error_is_no_exception_of_ours(self, stand: Stand) -> None:
        events = await stand.started()
        errors = stand.errors(events)
        loop = stand.loop(events)
        entry = stand.add("error", code="7")
        stand.add_many(1)
        first, _ = await loop.sees(2)
        assert first == CustomEvent(entry, "error", {"code": "7"})
        await aeventually(lambda: errors)
        assert [(error.event_id, error.event) for error in errors] == [(entry, "error")]
        assert "code: 7" in str(errors[0])

    async def test_bytes_that_are_no_text(self, stand: Stand) -> None:
        loop = stand.loop(await stand.started())
        stand.redis.xadd(stand.key, {"event": "n", b"a\xff": b"b\xfe"})  # type: ignore[dict-item]
        stand.redis.xadd(stand.key, {"event": "failed", "jobId": "1", "failedReason": b"\xff!"})
        custom, failed = await loop.sees(2)
        assert custom.fields == {"a\ufffd": "b\ufffd"}
        assert failed.failed_reason == "\ufffd!"

    async def test_a_result_type_may_raise_whatever_it_likes(self, stand: Stand) -> None:
        from dataclasses import dataclass

        @dataclass
        class Sent:
            to: str

            def __post_init__(self) -> None:
                if self.to == "x":
                    raise KeyError(self.to)

        events = await stand.started(result_type=Sent)
        errors = stand.errors(events)
        loop = stand.loop(events)
        # As many that nothing would be read any more if each took the room of a batch with it.
        for n in range(5):
            stand.add("completed", jobId=str(n), returnvalue='{"to": "x"}')
            await aeventually(lambda n=n: len(errors) == n + 1)
        stand.add("completed", jobId="5", returnvalue='{"to": "y"}')
        assert [event.job_id for event in await loop.sees(1)] == ["5"]
        assert str(errors[0]).endswith("is passed over: completed: KeyError: 'x'")

    async def test_a_result_is_of_the_type_that_was_given(self, stand: Stand) -> None:
        from dataclasses import dataclass

        @dataclass
        class Sent:
            to: str

        events = await stand.started(result_type=Sent)
        errors = stand.errors(events)
        loop = stand.loop(events)
        stand.add("completed", jobId="1", returnvalue='{"to": 1}')
        stand.add("completed", jobId="2", returnvalue='{"to": "x"}')
        stand.add("completed", jobId="3", returnvalue="null")
        stand.add("completed", jobId="4")
        seen = await loop.sees(3)
        assert [(event.job_id, event.returnvalue) for event in seen] == [("2", Sent("x")), ("3", None), ("4", None)]
        await aeventually(lambda: errors)
        assert "returnvalue.to" in str(errors[0])
