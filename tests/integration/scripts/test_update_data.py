"""``update_data``: new data, and nothing else."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from tests.integration.scripts.commands import CODES, NewJob, Queue


@pytest.mark.parametrize("data", ['{"b":"å"}', "null", "[" + "1," * 10_000 + "1]"])
@pytest.mark.parametrize("job", [NewJob(job_id="a"), NewJob(job_id="a", delay=500)])
def test_data_is_replaced(mail: Queue, job: NewJob, data: str) -> None:
    mail.add(job)
    assert mail.call("update_data", job="a", data=data) == (0, {"a": {"data": data}})
    assert mail.call("update_data", job="a", data=data) == (0, {})


def test_a_job_that_is_gone_is_not_made(mail: Queue) -> None:
    mail.add(NewJob(job_id="b"))
    assert mail.call("update_data", job="a", data="1") == (CODES["JOB_MISSING"], {})


@pytest.mark.leaves_keys_broken("a key that holds no job")
def test_a_key_that_is_no_job_is_not_touched(mail: Queue) -> None:
    mail.redis.set(mail.key("a"), "no job")
    before = mail.snapshot()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        mail.call("update_data", job="a", data="1")
    assert mail.snapshot() == before
