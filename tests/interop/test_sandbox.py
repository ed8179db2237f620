"""Jobs that Node adds and functions of ours run in child processes: Node sees what it sees of any other worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.interop.our_sides import OurSide

pytestmark = pytest.mark.asyncio

_PROCESSORS = Path(__file__).parents[1] / "integration" / "sandbox" / "processors.py"


@pytest.mark.parametrize("kind", ["", "_async"], ids=["def", "async def"])
async def test_node_sees_progress_logs_changed_data_and_the_result(
    ours: OurSide, node: NodeSide, keys: QueueKeys, kind: str
) -> None:
    events = await node.peer.queue_events("mail")
    job_id = await node.add("n", {"step": 1, "å": ["\U0001f600"]})
    worker = await ours.sandboxed_worker(f"{_PROCESSORS}:reports{kind}")
    (progress,) = await node.peer.wait_events("stream", 1, handle=events, name="progress")
    assert progress["fields"] == {"jobId": job_id, "data": {"done": 50}}
    await worker.said("completed", job_id=job_id)
    view = await node.view(job_id)
    assert view is not None
    assert (view.state, view.progress, view.data) == ("completed", {"done": 50}, {"step": [2, None]})
    assert view.returnvalue == [[1, 2], {"done": 50}, {"step": [2, None]}, "active"]
    assert await node.logs(job_id) == (["one", "två"], 2)
    assert keys.names(job_id) == ["added", "waiting", "active", "progress", "completed"]
    assert await ours.view(job_id) == view


async def test_node_sees_failures_and_crashes_and_may_try_again(ours: OurSide, node: NodeSide, keys: QueueKeys) -> None:
    raised = await node.add("n", {"raise": "ValueError"})
    worker = await ours.sandboxed_worker(f"{_PROCESSORS}:raises")
    await worker.said("failed", job_id=raised)
    view = await node.view(raised)
    assert view is not None
    assert (view.state, view.failed_reason, view.attempts_made) == ("failed", "why", 1)
    assert view.stacktrace[0].endswith("ValueError: why\n")
    await worker.close()
    crashed = await node.add("n", "segfault", attempts=2)
    worker = await ours.sandboxed_worker(f"{_PROCESSORS}:dies")
    await worker.said("failed", job_id=crashed, count=2)
    view = await node.view(crashed)
    assert view is not None
    assert (view.state, view.attempts_made, len(view.stacktrace)) == ("failed", 2, 2)
    assert view.failed_reason == "the child process was ended by SIGSEGV while it ran the job"
    await worker.close()
    # Each crash was an attempt, and Node runs the job like any other that failed.
    retried = await node.worker("echo")
    await node.peer.job(node.handle, crashed, "retry")
    (completed,) = await retried.said("completed", job_id=crashed)
    assert completed.value == "segfault"
    assert json.loads(keys.hash(crashed)["returnvalue"]) == "segfault"
