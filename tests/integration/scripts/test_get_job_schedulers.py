"""``get_job_schedulers``: all or one, and what half a scheduler is good for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import NOW, SLOT, Called, Queue, event


def listed(mail: Queue, scheduler: str = "", start: int = 0, last: int = -1, asc: str = "1") -> Called:
    return mail.call("get_job_schedulers", scheduler=scheduler, start=start, last=last, asc=asc)


@pytest.fixture
def three(mail: Queue) -> list[list[Any]]:
    """Schedulers a, b and c, as they are listed."""
    expected: list[list[Any]] = []
    for n, name in enumerate("abc"):
        mail.redis.zadd(mail.key("repeat"), {name: NOW + n})
        mail.put(f"repeat:{name}", {"name": name})
        expected.append([name, str(NOW + n), ["name", name]])
    return expected


def test_all(mail: Queue, three: list[Any]) -> None:
    assert listed(mail) == (three, {})
    assert listed(mail, asc="").reply == three[::-1]


def test_a_page(mail: Queue, three: list[Any]) -> None:
    assert listed(mail, start=1, last=1).reply == three[1:2]
    assert listed(mail, start=0, last=1, asc="").reply == [three[2], three[1]]


def test_one(mail: Queue, three: list[Any]) -> None:
    assert listed(mail, "b") == (three[1:2], {})
    assert listed(mail, "x") == ([], {})


def test_an_id_without_record_is_forgotten_with_its_delayed_job(mail: Queue, three: list[Any]) -> None:
    mail.redis.delete(mail.key("repeat:b"))
    job = f"repeat:b:{NOW + 1}"
    mail.store(job)
    mail.redis.zadd(mail.key("delayed"), {job: NOW * SLOT})
    assert listed(mail) == (
        [three[0], three[2]],
        {
            "repeat": {"a": NOW, "c": NOW + 2},
            job: None,
            "delayed": None,
            "events": [event("removed", job, prev="delayed")],
        },
    )


@pytest.mark.leaves_keys_broken("half a scheduler is what it is about")
def test_one_without_record_is_not_there(mail: Queue) -> None:
    mail.redis.zadd(mail.key("repeat"), {"b": NOW})
    assert listed(mail, "b") == ([], {})


@pytest.mark.leaves_keys_broken("an old client's record is no job scheduler")
def test_what_an_old_client_left_is_left(mail: Queue, three: list[Any]) -> None:
    mail.redis.zadd(mail.key("repeat"), {"n:id::zone:1000": NOW})
    mail.redis.set(mail.key("repeat:d"), "no hash")
    mail.redis.zadd(mail.key("repeat"), {"d": NOW})
    assert listed(mail) == (three, {})
