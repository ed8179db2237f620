"""How coroutines of a worker share tasks."""

from __future__ import annotations

import asyncio
import contextvars
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
        """Those of jobs, and one that has yet to begin; not the one that stays for more."""
        return asyncio.all_tasks() - {asyncio.current_task(), self.staying()}

    def staying(self) -> asyncio.Task[Any] | None:
        return self.runner._staying and self.runner._staying[0]

    async def end(self) -> None:
        """Afterwards nothing is left."""
        self.go_on.set()
        self.runner.end()
        await turns()
        assert not self.others()
        assert self.staying() is None
        assert not self.runner._tasks


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
    await jobs.end()


async def test_jobs_that_wait_hold_up_nobody_and_leave_no_task() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(number) for number in (2, 4, 5, 6)])
    await turns()
    assert jobs.begun == ["2", "4", "5", "6"]
    assert len(jobs.others()) == 3
    jobs.go_on.set()
    await turns()
    assert not jobs.others()
    await jobs.end()


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
    await jobs.end()


async def test_a_job_that_is_cancelled_ends_its_task_and_no_other_job() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(2), stored(4), stored(6)])
    await turns()
    jobs.runner.cancel(("4", "token"), "no longer wanted")
    jobs.runner.put([stored(7)])
    await turns()
    assert jobs.begun == ["2", "4", "6", "7"]
    assert len(jobs.others()) == 2
    await jobs.end()


async def test_jobs_that_have_not_begun_are_handed_back_the_first_one_last() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(number) for number in (2, 4, 6)])
    jobs.runner.hand_back_waiting()
    await turns()
    assert jobs.begun == []
    assert jobs.handed_back == ["6", "4", "2"]
    await jobs.end()


async def test_a_task_that_stays_begins_the_next_job_at_once() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(1)])
    await turns()
    staying = jobs.staying()
    assert staying is not None
    # As the port of a loop does it, outside of any task.
    begun: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def put() -> None:
        jobs.runner.put([stored(3), stored(2), stored(5)])
        begun.set_result([*jobs.begun])

    asyncio.get_running_loop().call_soon(put)
    assert await begun == ["1", "3", "2"]
    await turns()
    assert jobs.begun == ["1", "3", "2", "5"]
    assert jobs.tasks[:3] == [staying] * 3
    assert jobs.tasks[3] is jobs.staying()
    await jobs.end()


async def test_a_task_that_stays_and_is_cancelled_keeps_no_job() -> None:
    jobs = Jobs()
    jobs.runner.put([stored(1)])
    await turns()
    for _ in range(2):
        staying = jobs.staying()
        assert staying is not None
        # From within a task it goes on in the next turn.
        jobs.runner.put([stored(3)])
        staying.cancel()
        await turns()
    assert jobs.begun == ["1", "3", "3"]
    jobs.staying().cancel()
    await turns()
    assert jobs.staying() is None
    jobs.runner.put([stored(5)])
    await turns()
    assert jobs.begun[3:] == ["5"]
    await jobs.end()


async def test_a_job_that_leaves_its_context_changed_ends_its_task() -> None:
    variable = contextvars.ContextVar("variable", default="fresh")
    seen: list[str] = []
    jobs = Jobs()

    async def run(job: Stored, run: Run) -> None:
        seen.append(variable.get())
        variable.set(job[0])

    jobs.runner._run_job = run
    for number in (1, 3):
        jobs.runner.put([stored(number), stored(number)])
        await turns()
        assert jobs.staying() is None
    assert seen == ["fresh"] * 4
    await jobs.end()


async def test_none_stays_where_no_more_will_come() -> None:
    for stop in (TaskRunner.end, TaskRunner.hand_back_waiting):
        jobs = Jobs()
        jobs.runner.put([stored(2)])
        await turns()
        stop(jobs.runner)
        jobs.go_on.set()
        await turns()
        assert jobs.staying() is None
        assert not jobs.others()
