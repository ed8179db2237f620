"""Child processes that end under their job, and jobs that are told to end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.integration.sandbox.conftest import PROCESSORS, Place, children, lives
from tests.support.eventually import aeventually
from toromq import JobCancelledError, SandboxError, SandboxOptions

_kinds = pytest.mark.parametrize("kind", ["", "_async"], ids=["def", "async def"])
# For what only the child has to do with.
_one_face = pytest.mark.parametrize("face", ["toromq"])
# Long enough for a child to end on its own, if it does.
_PATIENT = SandboxOptions(kill_after=20_000)
_QUICK = SandboxOptions(kill_after=100)


# --- crashes ----------------------------------------------------------------------------------------------------------


_CRASHES = {
    "segfault": "was ended by SIGSEGV",
    "abort": "was ended by SIGABRT",
    "kill": "was ended by SIGKILL",
    "exit": "ended with exit code 3",
    "exit 0": "ended with exit code 0",
}


@_kinds
async def test_a_child_that_ends_fails_its_job_alone(place: Place, kind: str) -> None:
    # Before and after each crash there are two jobs for one and the same child.
    hows = [how for crash in _CRASHES for how in (None, None, crash)] + [None, None]
    jobs = await place.queue.add_bulk([("n", how) for how in hows])
    async with place.working(f"dies{kind}"):
        ended = [
            await place.ended(job.id, "failed" if how else "completed") for job, how in zip(jobs, hows, strict=True)
        ]
    pids = [job.returnvalue for job, how in zip(ended, hows, strict=True) if not how]
    assert pids[::2] == pids[1::2]
    assert len(set(pids)) == len(_CRASHES) + 1
    errors = {told[1].id: told[2] for told in place.told if told[0] == "failed"}
    for job, how in zip(ended, hows, strict=True):
        if how:
            reason = f"the child process {_CRASHES[how]} while it ran the job"
            assert (job.failed_reason, job.attempts_made, job.attempts_started) == (reason, 1, 1)
            error = errors.pop(job.id)
            assert (type(error), str(error), error.type) == (SandboxError, reason, "")
    assert errors == {}


@_one_face
@pytest.mark.parametrize(("how", "function"), [("segfault", "_segfault"), ("abort", "dies")])
async def test_a_crash_leaves_the_stack_it_happened_in(place: Place, how: str, function: str) -> None:
    job = await place.queue.add("n", how)
    async with place.working("dies"):
        (trace,) = (await place.ended(job.id, "failed")).stacktrace
    assert trace.startswith("toromq.errors.SandboxError: the child process was ended by SIG")
    assert "\nStack (most recent call first):\n" in trace
    assert f'File "{PROCESSORS}", line' in trace
    assert f" in {function}\n" in trace


@_one_face
async def test_a_crash_is_tried_again_as_any_failure(place: Place) -> None:
    job = await place.queue.add("n", "exit", attempts=3)
    async with place.working("dies"):
        failed = await place.ended(job.id, "failed")
    assert (failed.attempts_made, len(failed.stacktrace)) == (3, 3)


async def test_a_child_killed_from_outside_fails_its_job_alone(place: Place) -> None:
    first, second = await place.queue.add_bulk([("n", "returns"), ("n", "returns")])
    async with place.working("waits", concurrency=2, sandbox=_PATIENT) as worker:
        await place.progress(second.id)
        os.kill(await place.progress(first.id), signal.SIGKILL)
        failed = await place.ended(first.id, "failed")
        assert failed.failed_reason == "the child process was ended by SIGKILL while it ran the job"
        assert await place.queue.get_job_state(second.id) == "active"
        assert worker.cancel_job(second.id, "done")
        assert (await place.ended(second.id)).returnvalue == "stopped: done"


async def test_a_child_that_died_idle_fails_no_job(place: Place) -> None:
    async with place.working("dies"):
        job = await place.queue.add("n")
        first = (await place.ended(job.id)).returnvalue
        os.kill(first, signal.SIGKILL)
        job = await place.queue.add("n")
        ended = await place.ended(job.id)
    assert ended.returnvalue != first
    assert (ended.attempts_made, ended.failed_reason) == (1, None)


async def test_a_child_that_dies_before_a_job_begins_does_not_fail_it(place: Place) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(4)])
    async with place.working("dies_before_the_next"):
        ended = [await place.ended(job.id) for job in jobs]
    assert [(job.attempts_made, job.failed_reason) for job in ended] == [(1, None)] * 4
    assert len({job.returnvalue for job in ended}) == 4


@_one_face
async def test_a_processor_that_closes_all_files_fails_its_job_alone(place: Place) -> None:
    jobs = await place.queue.add_bulk([("n", how) for how in ("close", None)])
    async with place.working("closes", sandbox=_PATIENT):
        failed, completed = await place.ended(jobs[0].id, "failed"), await place.ended(jobs[1].id)
    assert failed.failed_reason == "the child process ended with exit code 0 while it ran the job"
    assert completed.returnvalue == "fine"


@_one_face
async def test_a_fork_of_a_child_may_die_as_it_likes(place: Place) -> None:
    job = await place.queue.add("n")
    async with place.working("forks"):
        assert (await place.ended(job.id)).returnvalue == [7, 1]


@_one_face
async def test_a_fork_that_outlives_its_child_does_not_hide_the_end_of_it(place: Place) -> None:
    job = await place.queue.add("n")
    try:
        async with place.working("leaves_a_fork"):
            failed = await place.ended(job.id, "failed")
    finally:
        os.kill(await place.progress(job.id), signal.SIGKILL)
    assert failed.failed_reason == "the child process ended with exit code 4 while it ran the job"


# --- cancellation -----------------------------------------------------------------------------------------------------


@_kinds
async def test_a_cancelled_job_fails_with_the_reason_and_its_child_goes_on(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    async with place.working(f"waits{kind}", sandbox=_PATIENT) as worker:
        pid = await place.progress(job.id)
        assert worker.cancel_job(job.id, "not wanted") is True
        failed = await place.ended(job.id, "failed")
        assert (failed.failed_reason, failed.attempts_made) == ("not wanted", 1)
        assert failed.stacktrace[0].strip().endswith("toromq.errors.JobCancelledError: not wanted")
        assert "processors.py" in failed.stacktrace[0]
        (error,) = (told[2] for told in place.told if told[0] == "failed")
        assert (type(error), str(error)) == (JobCancelledError, "not wanted")
        again = await place.queue.add("n")
        assert await place.progress(again.id) == pid
        worker.cancel_all_jobs()
        await place.ended(again.id, "failed")


@_kinds
async def test_a_cancelled_job_may_complete_all_the_same(place: Place, kind: str) -> None:
    job = await place.queue.add("n", "returns")
    async with place.working(f"waits{kind}", sandbox=_PATIENT) as worker:
        await place.progress(job.id)
        worker.cancel_job(job.id, "not wanted")
        assert (await place.ended(job.id)).returnvalue == "stopped: not wanted"


@pytest.mark.parametrize(
    ("processor", "end"),
    [("stubborn", "SIGTERM"), ("stubborn_async", "SIGTERM"), ("holds_interpreter", "SIGKILL"), ("stopped", "SIGKILL")],
)
async def test_a_job_that_does_not_end_is_ended_with_its_child(place: Place, processor: str, end: str) -> None:
    job, after = await place.queue.add_bulk([("n", 1), ("n", 2)])
    async with place.working(processor, sandbox=_QUICK) as worker:
        pid = await place.progress(job.id)
        worker.cancel_job(job.id, "enough")
        failed = await place.ended(job.id, "failed")
        assert failed.failed_reason == "enough"
        assert f"\nthe child process was ended by {end} while it ran the job\n" in failed.stacktrace[0]
        assert await place.progress(after.id) != pid
        assert not lives(pid)
        worker.cancel_all_jobs()
        await place.ended(after.id, "failed")


@_one_face
@pytest.mark.parametrize("processor", ["stubborn", "holds_interpreter"])
async def test_a_job_that_is_ended_leaves_the_stack_it_hung_in(place: Place, processor: str) -> None:
    job = await place.queue.add("n")
    async with place.working(processor, sandbox=_QUICK) as worker:
        await place.progress(job.id)
        worker.cancel_job(job.id, "enough")
        (trace,) = (await place.ended(job.id, "failed")).stacktrace
    assert trace.startswith("toromq.errors.JobCancelledError: enough\nthe child process was ended by SIG")
    if processor == "stubborn":
        assert " in stubborn\n" in trace


@_one_face
async def test_a_job_that_is_cancelled_during_the_import_does_not_begin(place: Place, tmp_path: Any) -> None:
    file = tmp_path / "slow.py"
    file.write_text(
        "import gc, time\n"
        "from toromq._sandbox.child import _Given\n"
        f"open({str(tmp_path / 'began')!r}, 'w').close()\n"
        "while not any(given.cancellation.is_set() for given in gc.get_objects() if isinstance(given, _Given)):\n"
        "    time.sleep(0.01)\n"
        "def process(job): return 'ran'"
    )
    job, other = await place.queue.add_bulk([("n", 1), ("n", 2)])
    async with place.working(f"{file}:process", sandbox=_PATIENT) as worker:
        await aeventually((tmp_path / "began").exists)
        worker.cancel_job(job.id, "too late")
        failed = await place.ended(job.id, "failed")
        assert failed.failed_reason == "too late"
        assert (await place.ended(other.id)).returnvalue == "ran"


@_kinds
async def test_a_lost_lock_ends_the_job_in_the_child(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    async with place.working(f"waits{kind}", sandbox=_PATIENT, lock_renew_time=50) as worker:
        pid = await place.progress(job.id)
        place.redis.set(place.key(f"{job.id}:lock"), "another worker", px=60_000)
        await aeventually(lambda: any(told[0] == "lock_lost" for told in place.told))
        # The child goes on with another job.
        other = await place.queue.add("n", "returns")
        assert await place.progress(other.id) == pid
        worker.cancel_job(other.id)
        await place.ended(other.id)
    # Its end is another worker's affair.
    assert place.redis.hget(place.key(job.id), "failedReason") is None
    assert await place.queue.get_job_state(job.id) == "active"


# --- closing ----------------------------------------------------------------------------------------------------------


@_kinds
async def test_closing_waits_for_the_job_and_then_ends_the_children(place: Place, kind: str) -> None:
    jobs = await place.queue.add_bulk([("n", "returns"), ("n", "returns")])
    worker = place.worker(f"waits{kind}", concurrency=2, sandbox=_PATIENT)
    await place.start(worker)
    pids = [await place.progress(job.id) for job in jobs]
    closing = asyncio.create_task(place.close(worker))
    worker.cancel_job(jobs[0].id)
    await place.ended(jobs[0].id)
    assert not closing.done()
    worker.cancel_job(jobs[1].id)
    await closing
    assert (await place.ended(jobs[1].id)).returnvalue.startswith("stopped")
    assert not any(map(lives, pids))
    assert children() == []


@pytest.mark.parametrize("processor", ["waits", "waits_async", "stubborn", "stubborn_async", "holds_interpreter"])
async def test_closing_by_force_kills_the_children_and_hands_back_their_jobs(place: Place, processor: str) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(3)])
    worker = place.worker(processor, concurrency=2, sandbox=_PATIENT)
    await place.start(worker)
    pids = [await place.progress(job.id) for job in jobs[:2]]
    await place.close(worker, force=True)
    assert not any(map(lives, pids))
    for job in jobs:
        left = await place.queue.get_job(job.id)
        assert left is not None
        assert (await left.get_state(), left.attempts_made, left.failed_reason) == ("waiting", 0, None)
    # Without the lock they could not be taken by another.
    assert place.redis.exists(*(place.key(f"{job.id}:lock") for job in jobs)) == 0
    assert not any(told[0] in ("failed", "completed") for told in place.told)


async def test_closing_by_force_does_not_wait_for_a_job_that_was_cancelled(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker("stubborn", sandbox=_PATIENT)
    await place.start(worker)
    pid = await place.progress(job.id)
    worker.cancel_job(job.id, "not wanted")
    await place.close(worker, force=True)
    assert not lives(pid)
    assert (await place.ended(job.id, "failed")).failed_reason == "not wanted"


@_one_face
async def test_children_that_are_idle_run_their_exit_handlers(place: Place, tmp_path: Any) -> None:
    job = await place.queue.add("n", str(tmp_path / "left"))
    async with place.working("touches_at_exit"):
        await place.ended(job.id)
        assert not (tmp_path / "left").exists()
    assert (tmp_path / "left").exists()


async def test_what_a_child_that_died_had_started_ends_too(place: Place) -> None:
    job = await place.queue.add("n", "dies")
    async with place.working("starts_another"):
        failed = await place.ended(job.id, "failed")
        assert failed.failed_reason == "the child process ended with exit code 5 while it ran the job"
        _, started = await place.progress(job.id)
        await aeventually(lambda: not lives(started))


async def test_what_a_child_started_ends_with_it(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker("starts_another", sandbox=_QUICK)
    await place.start(worker)
    pid, started = await place.progress(job.id)
    assert lives(started)
    worker.cancel_job(job.id)
    await place.ended(job.id, "failed")
    assert not lives(pid)
    await aeventually(lambda: not lives(started))
    await place.close(worker)
