"""How many child processes there are, and for how long."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import pytest

from tests.integration.sandbox.conftest import Place, children
from tests.support.eventually import aeventually
from toromq import SandboxOptions

# For what only the child has to do with.
_one_face = pytest.mark.parametrize("face", ["toromq"])
_kinds = pytest.mark.parametrize("kind", ["", "_async"], ids=["def", "async def"])


@_kinds
async def test_a_child_is_started_for_the_first_job_and_used_again(place: Place, kind: str) -> None:
    async with place.working(f"pid{kind}", concurrency=5):
        assert children() == []
        pids = []
        for _ in range(5):
            job = await place.queue.add("n")
            pids.append((await place.ended(job.id)).returnvalue)
        assert len(set(pids)) == 1
        assert children() == pids[:1]
        assert pids[0] != os.getpid()


async def test_there_are_as_many_children_as_jobs_run_at_once(place: Place, tmp_path: Path) -> None:
    async with place.working("meets", concurrency=3):
        jobs = await place.queue.add_bulk([("n", [str(tmp_path), 3]) for _ in range(3)])
        pids = {(await place.ended(job.id)).returnvalue for job in jobs}
        assert len(pids) == 3
        more = await place.queue.add_bulk([("n", [str(tmp_path), 0]) for _ in range(30)])
        assert {(await place.ended(job.id)).returnvalue for job in more} <= pids
        assert set(children()) == pids


async def test_fewer_children_stay_when_the_concurrency_is_lowered(place: Place, tmp_path: Path) -> None:
    async with place.working("meets", concurrency=1) as worker:
        worker.concurrency = 4
        jobs = await place.queue.add_bulk([("n", [str(tmp_path), 4]) for _ in range(4)])
        assert len({(await place.ended(job.id)).returnvalue for job in jobs}) == 4
        worker.concurrency = 1
        for _ in range(3):
            job = await place.queue.add("n", [str(tmp_path), 0])
            await place.ended(job.id)
        await aeventually(lambda: len(children()) == 1)


async def test_a_child_is_replaced_after_as_many_jobs_as_it_may_run(place: Place) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(7)])
    async with place.working("pid", sandbox=SandboxOptions(max_jobs=3)):
        pids = [(await place.ended(job.id)).returnvalue for job in jobs]
        assert len(children()) == 1
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3, 3, 6]


async def test_a_thousand_jobs_run_once_each_in_four_children(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    jobs = await place.queue.add_bulk([("n", str(file)) for _ in range(1000)])
    async with place.working("notes", concurrency=4):

        async def done() -> bool:
            return (await place.queue.get_job_counts("completed"))["completed"] == 1000

        await aeventually(done, 60)
        pids = set(children())
    ran = [line.split() for line in file.read_text().splitlines()]
    assert collections.Counter(job_id for job_id, _ in ran) == dict.fromkeys((job.id for job in jobs), 1)
    assert {int(pid) for _, pid in ran} <= pids
    assert len(pids) <= 4


@_one_face
@_kinds
async def test_context_variables_of_one_job_are_not_seen_by_the_next(place: Place, kind: str) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(3)])
    async with place.working(f"sets_context{kind}"):
        assert [(await place.ended(job.id)).returnvalue for job in jobs] == [["unset", 1], ["unset", 2], ["unset", 3]]


@_one_face
async def test_the_event_loop_of_a_child_goes_on_between_its_jobs(place: Place, tmp_path: Path) -> None:
    job = await place.queue.add("n", str(tmp_path / "written"))
    async with place.working("leaves_a_task"):
        await place.ended(job.id)
        await aeventually((tmp_path / "written").exists)


@pytest.mark.parametrize("force", [False, True])
async def test_no_descriptor_is_left_open(place: Place, force: bool) -> None:
    def descriptors() -> collections.Counter[str]:
        """How many there are of each kind."""
        kinds: collections.Counter[str] = collections.Counter()
        for number in os.listdir("/proc/self/fd"):
            try:
                kinds[os.readlink(f"/proc/self/fd/{number}").split(":")[0]] += 1
            except OSError:
                # The one that listed them.
                continue
        return kinds

    async def work() -> None:
        worker = place.worker("dies", concurrency=2, sandbox=SandboxOptions(max_jobs=2))
        await place.start(worker)
        jobs = await place.queue.add_bulk([("n", how) for how in (None, "exit", None, "segfault", None, None)])
        for job in jobs:
            await place.ended(job.id, "failed" if job.data else "completed")
        await place.close(worker, force)

    await work()
    before = descriptors()
    for _ in range(2):
        await work()
    # No more, for the engine closes its connections when it has the time, and may not have been done with it before.
    await aeventually(lambda: descriptors() <= before, message=f"no more than {before}")


@_one_face
async def test_a_child_that_hangs_at_its_end_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from toromq._sandbox import process

    monkeypatch.setattr(process, "_LAST_WORDS", 0.1)
    job = await place.queue.add("n")
    async with place.working("hangs_at_exit"):
        pid = (await place.ended(job.id)).returnvalue
        assert children() == [pid]
    assert children() == []


@_one_face
async def test_a_child_that_cannot_be_started_fails_the_job_with_the_cause(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    async with place.working("pid"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/no/such/python")
            job = await place.queue.add("n")
            job = await place.ended(job.id, "failed")
        assert job.failed_reason.startswith("no child process could be started: [Errno 2] No such file or directory")
        job = await place.queue.add("n")
        await place.ended(job.id)


