"""``get_jobs_by_id``: several jobs at one moment."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NewJob, Queue, flat


def test_jobs_come_in_the_order_asked(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", data="1"), NewJob(job_id="b", delay=500))
    reply, changed = mail.call("get_jobs_by_id", [("b",), ("a",), ("b",)])
    b, a = (flat(mail.hash(job_id)) for job_id in "ba")
    assert (reply, changed) == ([b, a, b], {})
    assert mail.call("get_jobs_by_id").reply == []


@pytest.mark.leaves_keys_broken("a key that holds no job")
def test_what_is_no_job_is_empty(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    mail.redis.set(mail.key("c"), "no job")
    reply, changed = mail.call("get_jobs_by_id", [("b",), ("a",), ("c",)])
    assert (reply, changed) == ([[], flat(mail.hash("a")), []], {})
