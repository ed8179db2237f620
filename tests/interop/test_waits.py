"""Conformance items 13, 14 and 46: we wait for jobs that others end, and each side lists the other's workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.sides import RefusedError
from tests.support.eventually import aeventually
from toromq import JobFailedError, JobNotFoundError, JobTimeoutError

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.interop.our_sides import OurSide
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio

_RESULTS: dict[str, Any] = {
    "object": {"sent": True, "to": ["å", 1.5, None]},
    "list": [],
    "text": "all good",
    "empty text": "",
    "number": 12.5,
    "zero": 0,
    "false": False,
    "null": None,
}


async def _wait(ours: OurSide, job_id: str, timeout: int | None = None) -> Any:
    try:
        return await ours.call("wait_until_finished", job_id, timeout)
    except RefusedError as refused:
        # What our users see.
        raise (refused.__cause__ or refused) from None


async def _reads(keys: QueueKeys) -> None:
    name = f"{keys.prefix}:bWFpbA==:qe"

    def reads() -> bool:
        return any(client["name"] == name and client["cmd"] == "xread" for client in keys.redis.client_list())

    await aeventually(reads, message="our reader reads")


@pytest.mark.parametrize("result", _RESULTS.values(), ids=_RESULTS.keys())
async def test_we_wait_for_a_result_and_get_it(ours: OurSide, side: Side, keys: QueueKeys, result: Any) -> None:
    worker = await side.worker("gate")
    job_id = await side.add("n", {})
    await worker.started(job_id)
    waiting = asyncio.ensure_future(_wait(ours, job_id))
    await _reads(keys)
    await worker.open(job_id, result)
    for value in (await waiting, await _wait(ours, job_id)):
        assert value == result
        assert type(value) is type(result)


async def test_a_processor_without_result_gives_none(ours: OurSide, side: Side) -> None:
    await side.worker("undefined")
    job_id = await side.add("n", {})
    assert await _wait(ours, job_id) is None


async def test_we_wait_for_a_failure_and_get_its_reason(ours: OurSide, side: Side, keys: QueueKeys) -> None:
    worker = await side.worker("gate")
    job_id = await ours.add("n", {})
    await worker.started(job_id)
    waiting = asyncio.ensure_future(_wait(ours, job_id))
    await _reads(keys)
    await worker.open(job_id, error='no luck, "åäö"')
    for ended in (waiting, _wait(ours, job_id)):
        with pytest.raises(JobFailedError) as failure:
            await ended
        assert failure.value.failed_reason == 'no luck, "åäö"'


async def test_only_the_last_failure_counts(ours: OurSide, side: Side) -> None:
    worker = await side.worker({"name": "fail_times", "times": 2, "value": "third"})
    job_id = await ours.add("n", {}, attempts=3)
    assert await _wait(ours, job_id) == "third"
    # What the other side's process tells of its runs may come after what Redis tells.
    assert len(await worker.started(job_id, count=3)) == 3


async def test_a_result_reaches_us_although_the_job_is_removed_at_once(
    ours: OurSide, side: Side, keys: QueueKeys
) -> None:
    worker = await side.worker("gate")
    job_id = await side.add("n", {}, remove_on_complete=True)
    await worker.started(job_id)
    waiting = asyncio.ensure_future(_wait(ours, job_id))
    # Begun: a thread may come after one that was asked for later.
    await _reads(keys)
    # Looked at by the time this is answered, as it waits for the same reader.
    with pytest.raises(JobTimeoutError):
        await _wait(ours, job_id, 0)
    await worker.open(job_id, {"kept": False})
    assert await waiting == {"kept": False}
    assert keys.hash(job_id) == {}
    with pytest.raises(JobNotFoundError):
        await _wait(ours, job_id)


async def test_a_job_that_the_other_side_removes_ends_our_wait(
    ours: OurSide, node: NodeSide, keys: QueueKeys
) -> None:
    job_id = await node.add("n", {})
    waiting = asyncio.ensure_future(_wait(ours, job_id))
    await _reads(keys)
    await node.peer.call(node.handle, "remove", job_id)
    with pytest.raises(JobNotFoundError):
        await waiting


async def test_many_wait_while_both_sides_work(pair: Pair, ours: OurSide) -> None:
    for side in (pair.a, pair.b):
        await side.worker("echo", concurrency=5)
    ids = await pair.a.add_bulk([("n", {"n": n}, {}) for n in range(100)])
    results = await asyncio.gather(*(_wait(ours, job_id) for job_id in ids))
    assert results == [{"n": n} for n in range(100)]


async def test_each_side_lists_the_workers_of_both_once(pair: Pair, ours: OurSide, node: NodeSide) -> None:
    await pair.a.worker("echo", name="first")
    await pair.b.worker("echo", name="second")

    async def listed() -> bool:
        assert sorted(worker.worker_name for worker in await ours.call("get_workers")) == ["first", "second"]
        assert await ours.call("get_workers_count") == 2
        found = await node.peer.call(node.handle, "getWorkers")
        assert sorted(worker["rawname"].rpartition(":")[2] for worker in found) == ["first", "second"]
        assert {worker["name"] for worker in found} == {"mail"}
        assert await node.peer.call(node.handle, "getWorkersCount") == 2
        return True

    await aeventually(listed)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 1, 50, 150, 1000])
async def test_old_events_are_trimmed_alike(ours: OurSide, node: NodeSide, keys: QueueKeys, length: int) -> None:
    went = []
    for trim in (ours.call, node.peer.call):
        await ours.add_bulk([("n", {}, {})] * 165)
        arguments = ("trim_events", length) if trim == ours.call else (node.handle, "trimEvents", length)
        went.append((await trim(*arguments), keys.redis.xlen(keys("events"))))
        keys.redis.delete(keys("events"))
    assert went[0] == went[1]
