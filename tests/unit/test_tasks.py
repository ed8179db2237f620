"""How coroutines of a worker share tasks."""

from __future__ import annotations

import asyncio
from typing import Any

from toromq._job_fields import Run, Stored
from toromq._tasks import TaskRunner


def stored(number: int) -> Stored:
    return (str(number), "token", 1, 0, {})


class Jobs:
    """Runs that are noted: those of even numbers wait until they are told to go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.handed_back: list[str] = []
        self.go_on = asyncio.Event()
        self.runner = TaskRunner(self.run, lambda run: self.handed_back.append(run[0]))

    async def run(self, job: Stored, run: Run) -> None:
        assert run == (job[0], job[1])
        assert self.runner.is_inside()
        self.begun.append(job[0])
        self.tasks.append(asyncio.current_task())
        if int(job[0]) % 2 == 0:
            await self.go_on.wait()

    def others(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - {asyncio.current_task()}


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_jobs_that_never_wait_share_a_task() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(number) for number in (1, 3, 5)])
    await turns()
    assert jobs.begun == ["1", "3", "5"]
    assert len(set(jobs.tasks)) == 1
    assert not jobs.others()
    assert not jobs.runner.is_inside()


async def test_jobs_that_wait_hold_up_nobody_and_leave_no_task() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(number) for number in (2, 4, 5, 6)])
    await turns()
    assert jobs.begun == ["2", "4", "5", "6"]
    assert len(jobs.others()) == 3
    jobs.go_on.set()
    await turns()
    assert not jobs.others()
    assert not jobs.runner._tasks


async def test_a_task_that_is_cancelled_before_its_first_step_keeps_no_job() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(1), stored(3)])
    (task,) = jobs.others()
    task.cancel()
    await turns()
    assert jobs.begun == []
    jobs.runner.put([stored(5)])
    await turns()
    assert jobs.begun == ["1", "3", "5"]
    assert not jobs.runner._tasks


async def test_a_job_that_is_cancelled_ends_its_task_and_no_other_job() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(2), stored(4), stored(6)])
    await turns()
    jobs.runner.cancel(("4", "token"), "no longer wanted")
    jobs.runner.put([stored(7)])
    await turns()
    assert jobs.begun == ["2", "4", "6", "7"]
    assert len(jobs.others()) == 2
    jobs.go_on.set()
    await turns()
    assert not jobs.runner._tasks


async def test_jobs_that_have_not_begun_are_handed_back_the_first_one_last() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(number) for number in (2, 4, 6)])
    jobs.runner.hand_back_waiting()
    await turns()
    assert jobs.begun == []
    assert jobs.handed_back == ["6", "4", "2"]
    assert not jobs.runner._tasks
