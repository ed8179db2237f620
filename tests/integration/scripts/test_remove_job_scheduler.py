"""``remove_job_scheduler``: its record goes, and its next job if that is delayed."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NOW, SLOT, Called, Queue, event


def remove(mail: Queue, scheduler: str = "s") -> Called:
    return mail.call("remove_job_scheduler", scheduler=scheduler)


@pytest.fixture
def job(mail: Queue) -> str:
    """The id of the next job of scheduler s, which is delayed. Scheduler t is there as well."""
    mail.redis.zadd(mail.key("repeat"), {"s": NOW, "t": NOW})
    for name in "st":
        mail.put(f"repeat:{name}", {"ic": 1})
    mail.store(f"repeat:s:{NOW}")
    mail.redis.zadd(mail.key("delayed"), {f"repeat:s:{NOW}": NOW * SLOT})
    return f"repeat:s:{NOW}"


def test_its_delayed_job_goes_as_well(mail: Queue, job: str) -> None:
    mail.redis.rpush(mail.key(f"{job}:logs"), "line")
    assert remove(mail) == (
        1,
        {
            "repeat": {"t": NOW},
            "repeat:s": None,
            job: None,
            f"{job}:logs": None,
            "delayed": None,
            "events": [event("removed", job, prev="delayed")],
        },
    )


def test_one_that_waits_goes_on(mail: Queue, job: str) -> None:
    mail.redis.delete(mail.key("delayed"))
    mail.redis.lpush(mail.key("wait"), job)
    mail.redis.zadd(mail.key("marker"), {"0": 0})
    assert remove(mail) == (1, {"repeat": {"t": NOW}, "repeat:s": None})


def test_there_is_none(mail: Queue, job: str) -> None:
    assert remove(mail, "x") == (0, {})
