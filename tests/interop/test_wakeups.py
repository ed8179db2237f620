"""Conformance items 10-12: an idle worker of one side wakes up for the other side's jobs, and they share the work.

No clock decides here. A worker that sleeps for a minute and still takes the job at once was woken.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.interop.conftest import Pair

pytestmark = pytest.mark.asyncio

# Seconds; much longer than any deadline below. With the lock of that length a worker of ours arms its waits.
_LONG_SLEEP = 60
_LONG_LOCK = {"lock_duration": 4 * _LONG_SLEEP * 1000}


async def _asleep(pair: Pair, count: int = 1) -> None:
    await aeventually(
        lambda: pair.keys.idle_workers() >= count, message=f"{count} workers of {pair.b} block on a marker"
    )


@pytest.mark.parametrize("options", [{}, {"priority": 3}, {"lifo": True}], ids=["standard", "prioritized", "lifo"])
async def test_an_idle_worker_wakes_for_a_job_of_the_other_side(pair: Pair, options: dict[str, Any]) -> None:
    worker = await pair.b.worker("undefined", drain_delay=_LONG_SLEEP, **_LONG_LOCK)
    await _asleep(pair)
    job_id = await pair.a.add("n", {}, **options)
    await worker.said("completed", job_id=job_id)
    # Asleep once more, and woken once more: the first wake-up was no leftover of the start.
    await _asleep(pair)
    ids = await pair.a.add_bulk([("n", {}, options)] * 5)
    await worker.said("completed", count=1 + len(ids))


async def test_an_idle_worker_wakes_for_a_delayed_job_of_the_other_side(pair: Pair) -> None:
    worker = await pair.b.worker("undefined", drain_delay=_LONG_SLEEP, **_LONG_LOCK)
    await _asleep(pair)
    job_id = await pair.a.add("n", {}, delay=300)
    await worker.said("completed", job_id=job_id)
    view = await pair.b.view(job_id)
    assert view is not None
    assert view.processed_on is not None
    # The server's and the clients' clocks are one clock here; a wake-up may be up to one millisecond early.
    assert view.processed_on >= view.timestamp + 300 - 1
    assert pair.keys.events(job_id)[2:4] == [("waiting", {"prev": "delayed"}), ("active", {"prev": "waiting"})]
    assert view.delay == 0


async def test_an_earlier_delayed_job_shortens_the_sleep(pair: Pair) -> None:
    worker = await pair.b.worker("undefined", drain_delay=_LONG_SLEEP, **_LONG_LOCK)
    await _asleep(pair)
    late = await pair.a.add("n", {}, delay=600_000)
    await _asleep(pair)
    soon = await pair.a.add("n", {}, delay=100)
    await worker.said("completed", job_id=soon)
    assert worker.runs(late) == []


async def test_a_busy_worker_wakes_its_idle_neighbour(pair: Pair) -> None:
    first = await pair.a.worker("gate", drain_delay=_LONG_SLEEP, **_LONG_LOCK)
    second = await pair.b.worker("gate", drain_delay=_LONG_SLEEP, **_LONG_LOCK)
    await _asleep(pair, 2)
    ids = await pair.a.add_bulk([("n", {}, {})] * 2)
    await first.started()
    await second.started()
    for worker in (first, second):
        (run,) = worker.runs()
        ids.remove(run.job_id)
        await worker.open(run.job_id)
        await worker.said("completed", job_id=run.job_id)
    assert ids == []


async def test_a_thousand_jobs_are_shared_and_each_runs_once(pair: Pair) -> None:
    options = {"concurrency": 5, "drain_delay": _LONG_SLEEP, **_LONG_LOCK}
    workers = [await side.worker("by_name", **options) for side in (pair.a, pair.b)]
    # Ten jobs that end only when told to: each worker must hold as many as it has slots, and no more.
    gated = await pair.a.add_bulk([("gate", {}, {})] * 10)
    for worker in workers:
        await worker.started(count=5)
    assert [len(worker.runs()) for worker in workers] == [5, 5]
    others: list[str] = []
    for number in range(10):
        others += await (pair.a if number % 2 else pair.b).add_bulk([("value", {"value": number}, {})] * 99)
    for worker in workers:
        for run in list(worker.runs()):
            await worker.open(run.job_id, "opened")
    await aeventually(
        lambda: sum(len(worker.outcomes("completed")) for worker in workers) >= 1000, 60, "1000 jobs completed"
    )
    runs = Counter(run.job_id for worker in workers for run in worker.runs())
    assert set(runs) == {*gated, *others}
    assert set(runs.values()) == {1}
    assert sum(len(worker.outcomes("failed", "stalled", "error")) for worker in workers) == 0
    assert await pair.a.counts() == await pair.b.counts()
    assert (await pair.a.counts())["completed"] == 1000
    by_job: dict[str, list[str]] = {}
    for name, fields in pair.keys.events():
        if "jobId" in fields:
            by_job.setdefault(fields["jobId"], []).append(name)
    assert set(by_job) == set(runs)
    assert {tuple(names) for names in by_job.values()} == {("added", "waiting", "active", "completed")}
