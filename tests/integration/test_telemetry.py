"""What this process itself did, as counted by the engine: nothing is left out, nothing counted twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import toromq
from tests.support.eventually import aeventually, eventually
from tests.support.redisbox import RedisBox
from toromq import ConfigurationError, RateLimitError, UnrecoverableError, metrics, sync
from toromq.metrics import QueueActivity, Times

if TYPE_CHECKING:
    import redis as redis_py

_COUNTS = ("added", "started", "completed", "failed", "retried", "put_back", "refused", "locks_lost", "stalled")
_TIMES = ("wait", "lateness", "handover", "run")


def activity(prefix: str, queue: str = "q") -> QueueActivity:
    """What was done on this test's queue."""
    (found,) = (known for known in metrics.snapshot().queues if (known.prefix, known.queue) == (prefix, queue))
    return found


def counts(prefix: str) -> dict[str, int]:
    """All counts that are not 0."""
    found = activity(prefix)
    return {name: getattr(found, name) for name in _COUNTS if getattr(found, name)}


class Place:
    """Options of this test's queue."""

    def __init__(self, url: str, prefix: str) -> None:
        self.prefix = prefix
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Any = toromq.Queue("q", **self.options)

    async def ran(self, processor: Any, count: int, kind: str = "async def", **options: Any) -> None:
        """Runs a worker until so many jobs are completed or failed."""

        async def coroutine(job: Any) -> Any:
            return processor(job)

        async def so_many() -> bool:
            return sum((await self.queue.get_job_counts("completed", "failed")).values()) == count

        if kind == "blocking":
            blocking: Any = sync.Worker("q", processor, **self.options, **options)
            await asyncio.to_thread(blocking.__enter__)
            await aeventually(so_many)
            await asyncio.to_thread(blocking.close)
        else:
            async with toromq.Worker("q", coroutine if kind == "async def" else processor, **self.options, **options):
                await aeventually(so_many)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str) -> Any:
    made = Place(redisbox.url, prefix)
    yield made
    await made.queue.close()


# --- what is counted --------------------------------------------------------------------------------------------------


async def test_a_queue_that_was_not_used_is_not_told_of(place: Place) -> None:
    assert all(known.prefix != place.prefix for known in metrics.snapshot().queues)


@pytest.mark.parametrize("kind", ["async def", "def", "blocking"])
async def test_each_end_of_a_job_has_its_count(place: Place, kind: str) -> None:
    await place.queue.add("fine")
    await place.queue.add_bulk([("fine", None), ("fails", None), ("hopeless", None, {"attempts": 9})])
    await place.queue.add("fails", attempts=3, backoff=1)
    await place.queue.add("limited")

    def processor(job: Any) -> None:
        if job.name == "fails":
            raise ValueError
        if job.name == "hopeless":
            raise UnrecoverableError
        if job.name == "limited" and job.attempts_started < 3:
            raise RateLimitError

    await place.ran(processor, 6, kind)
    assert counts(place.prefix) == {
        "added": 6, "started": 6 + 2 + 2, "completed": 3, "failed": 3, "retried": 2, "put_back": 2,
    }  # fmt: skip
    assert activity(place.prefix).run.count == 6 + 2
    assert activity(place.prefix).handover.count == 6 + 2
    assert activity(place.prefix).wait.count == 6


async def test_an_add_that_finds_its_job_there_adds_none(place: Place) -> None:
    await place.queue.add("n", job_id="one")
    await place.queue.add("n", job_id="one")
    await place.queue.add_bulk([("n", 1, {"job_id": "one"}), ("n", 1, {"job_id": "two"})])
    assert counts(place.prefix) == {"added": 2}


async def test_what_is_done_by_hand_counts(place: Place) -> None:
    await place.queue.add_bulk([("n", n) for n in range(3)])
    hand: Any = toromq.Worker("q", None, **place.options)
    first = await hand.get_next_job("t", block=False)
    second = await first.move_to_completed(None, "t")
    with pytest.raises(toromq.ScriptError):
        await second.move_to_completed(None, "other", fetch_next=False)
    await second.move_to_failed(ValueError("no"), "t", fetch_next=False)
    await hand.close()
    assert counts(place.prefix) == {"added": 3, "started": 2, "completed": 1, "failed": 1, "refused": 1}


async def test_a_lost_lock_and_a_stalled_job_are_counted(place: Place, redis: redis_py.Redis) -> None:
    job = await place.queue.add("n")
    lock = f"{place.prefix}:q:{job.id}:lock"
    runs: list[int] = []
    lost = asyncio.Event()

    async def processor(job: Any) -> None:
        runs.append(job.attempts_started)
        if len(runs) == 1:
            await asyncio.sleep(60)

    worker: Any = toromq.Worker("q", processor, **place.options, lock_duration=200, stalled_interval=50)
    worker.on("lock_lost", lambda _: lost.set())
    async with worker:
        await aeventually(lambda: runs)
        redis.delete(lock)
        await lost.wait()
        await aeventually(lambda: len(runs) == 2)
        await aeventually(lambda: counts(place.prefix).get("completed"))
    assert counts(place.prefix) == {"added": 1, "started": 2, "completed": 1, "locks_lost": 1, "stalled": 1}


async def test_a_connection_that_is_made_anew_is_counted(prefix: str) -> None:
    with RedisBox() as box:
        queue: Any = toromq.Queue("q", connection=box.url, prefix=prefix)
        await queue.add("n")
        before = metrics.snapshot().reconnects
        box.kill()
        box.start()
        await queue.add("n")
        assert metrics.snapshot().reconnects == before + 1
        await queue.close()


# --- how long it took -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_run_is_told_apart_from_what_it_waited_for(place: Place, kind: str) -> None:
    await place.queue.add_bulk([("n", n) for n in range(2)])

    # It holds the event loop, and so the other job, which is no time of that one's processor.
    def processor(job: Any) -> None:
        time.sleep(0.2)

    concurrency = 2 if kind == "async def" else 1
    await place.ran(processor, 2, kind, concurrency=concurrency)
    found = activity(place.prefix)
    assert found.run.count == 2
    assert found.run.sum >= 0.4
    if kind == "async def":
        # The second was there from the start, and begun when the first had ended.
        assert found.handover.sum >= 0.19


async def test_waits_begin_when_a_job_is_added_or_due(place: Place) -> None:
    hour = 3_600_000
    added = time.time_ns() // 1_000_000 - 2 * hour
    await place.queue.add("n", timestamp=added)
    await place.queue.add("n", timestamp=added, delay=hour)
    promoted = await place.queue.add("n", delay=hour)
    await promoted.promote()
    await place.ran(lambda job: None, 3)
    found = activity(place.prefix)
    # Two hours, one hour; and one that ran before it was due, which waited for nothing.
    assert (found.wait.count, found.lateness.count) == (2, 1)
    assert 3 * 3600 <= found.wait.sum < 4 * 3600
    assert 3600 <= found.lateness.sum < 2 * 3600
    assert found.wait.counts[-1] == 2


# --- how it is told ---------------------------------------------------------------------------------------------------


async def _something(place: Place) -> None:
    await place.queue.add_bulk([("n", n) for n in range(5)])
    await place.queue.add("n", delay=5)
    await place.ran(lambda job: None, 6)


def test_times_are_cumulated_for_prometheus() -> None:
    times = Times(bounds=(0.1, 1.0), counts=(2, 0, 3), sum=7.5)
    assert (times.count, times.cumulated()) == (5, [("0.1", 2), ("1.0", 2), ("+Inf", 5)])


async def test_the_text_says_what_the_snapshot_says(place: Place) -> None:
    await _something(place)
    found = activity(place.prefix)
    labels = {"prefix": place.prefix, "queue": "q", "host": 'a"b'}
    told: dict[tuple[str, str], float] = {}
    kinds: dict[str, str] = {}
    for family in text_string_to_metric_families(metrics.render({"host": 'a"b'})):
        kinds[family.name] = family.type
        for sample in family.samples:
            rest = dict(sample.labels)
            bound = rest.pop("le", "")
            if rest == labels:
                told[sample.name, bound] = sample.value
    names = {name: f"toromq_jobs_{name}_total" for name in _COUNTS}
    names |= {"refused": "toromq_outcomes_refused_total", "locks_lost": "toromq_locks_lost_total"}
    expected: dict[tuple[str, str], float] = {(names[name], ""): getattr(found, name) for name in _COUNTS}
    for name in _TIMES:
        times: Times = getattr(found, name)
        expected |= {(f"toromq_job_{name}_seconds_bucket", bound): count for bound, count in times.cumulated()}
        expected[f"toromq_job_{name}_seconds_sum", ""] = times.sum
        expected[f"toromq_job_{name}_seconds_count", ""] = times.count
    assert told == expected
    assert set(kinds.values()) == {"counter", "histogram"}
    assert len(kinds) == 1 + len(_COUNTS) + len(_TIMES)
    assert found.lateness.count == 1


async def test_the_collector_tells_prometheus_client_the_same(place: Place) -> None:
    await _something(place)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(metrics.Collector({"host": "here"}))
    by_client = generate_latest(registry).decode()
    samples = [
        {
            (sample.name, *sorted(sample.labels.items()), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        for text in (by_client, metrics.render({"host": "here"}))
    ]
    assert samples[0] == samples[1]
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(metrics.Collector())


@pytest.mark.parametrize("label", ["queue", "prefix", "le", "a b"])
@pytest.mark.parametrize("what", [metrics.render, metrics.Collector])
def test_labels_that_would_not_be_read_are_refused(what: Any, label: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^labels: "):
        what({label: "x"})


# --- processes --------------------------------------------------------------------------------------------------------


def _python(code: str, *arguments: str) -> str:
    program = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_importing_it_does_nothing() -> None:
    code = """
        import sys, threading
        from toromq import metrics
        assert threading.active_count() == 1
        assert "prometheus_client" not in sys.modules
        metrics.Collector()
        assert "prometheus_client" not in sys.modules
        print(metrics.snapshot())
    """
    assert _python(code) == "Snapshot(reconnects=0, queues=())\n"


def test_a_forked_child_begins_anew(redisbox: RedisBox, prefix: str) -> None:
    code = """
        import os, sys, warnings
        from toromq import metrics, sync
        warnings.simplefilter("ignore", DeprecationWarning)
        url, prefix = sys.argv[1:]
        queue = sync.Queue("q", connection=url, prefix=prefix)
        def added():
            return [found.added for found in metrics.snapshot().queues]
        queue.add("n")
        if os.fork() == 0:
            before = added()
            queue.add_bulk([("n", 1), ("n", 2)])
            print("child", before, added(), flush=True)
            os._exit(0)
        os.wait()
        queue.add("n")
        print("parent", added())
        queue.close()
    """
    assert _python(code, redisbox.url, prefix) == "child [] [2]\nparent [2]\n"


def test_threads_of_one_process_count_together(redisbox: RedisBox, prefix: str) -> None:
    queue: Any = sync.Queue("q", connection=redisbox.url, prefix=prefix)
    threads = [threading.Thread(target=lambda: [queue.add("n") for _ in range(25)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: counts(prefix) == {"added": 100})
    queue.close()
