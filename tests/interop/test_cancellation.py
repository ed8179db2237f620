"""Jobs that are cancelled while they run end alike on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair

pytestmark = pytest.mark.asyncio


async def test_a_cancelled_job_fails_with_the_reason_and_is_tried_again(pair: Pair) -> None:
    job_id = await pair.a.add("until_cancelled", attempts=2)
    worker = await pair.b.worker("by_name", concurrency=2)
    other = await pair.a.add("gate")
    await worker.started(other)
    for attempt, reason in ((1, "first"), (2, "second")):
        await worker.started(job_id, attempt)
        assert await worker.cancel(job_id, reason) is True
        failed = await worker.said("failed", job_id=job_id, count=attempt)
        assert failed[-1].value == reason
    assert await worker.cancel("unknown", "why") is False
    fields = pair.keys.hash(job_id)
    assert (fields["failedReason"], fields["atm"], fields["ats"], fields["stacktrace"]) == ("second", "2", "2", 2)
    assert pair.keys.names(job_id)[1:] == ["waiting", *["active", "waiting"], "active", "failed", "retries-exhausted"]
    assert await pair.a.view(job_id) == await pair.b.view(job_id)
    await worker.open(other, 1)
    await worker.said("completed", job_id=other)
