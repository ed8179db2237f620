"""``get_counts``: how many jobs are where."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NOW, Queue

PLACES = {"active": 2, "prioritized": 3, "delayed": 4, "waiting-children": 5, "completed": 6, "failed": 7}
pytestmark = pytest.mark.leaves_keys_broken("ids without hashes")


def counts(mail: Queue, *states: str) -> list[int]:
    reply, changed = mail.call("get_counts", [(state,) for state in states])
    assert changed == {}
    return list(reply)


@pytest.fixture(autouse=True)
def _jobs(mail: Queue) -> None:
    for place, count in PLACES.items():
        ids = [f"{place}-{n}" for n in range(count)]
        if place == "active":
            mail.redis.rpush(mail.key(place), *ids)
        else:
            mail.redis.zadd(mail.key(place), dict.fromkeys(ids, NOW))
    mail.redis.rpush(mail.key("wait"), *"abcde")
    mail.redis.rpush(mail.key("paused"), *"xyz")


@pytest.mark.parametrize(("state", "count"), [*PLACES.items(), ("waiting", 8)])
def test_a_count(mail: Queue, state: str, count: int) -> None:
    assert counts(mail, state) == [count]


def test_counts_come_in_the_order_asked(mail: Queue) -> None:
    assert counts(mail, "failed", "waiting", "active", "failed") == [7, 8, 2, 7]
    assert counts(mail) == []


def test_an_empty_queue(mail: Queue, prefix: str) -> None:
    assert counts(Queue(mail.redis, prefix, "empty"), "waiting", *PLACES) == [0] * 7
