"""``get_counts_per_priority``: how many jobs of each priority wait."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import PRIORITY, NewJob, Queue

HIGHEST = 2_097_151


def counts(mail: Queue, *priorities: int) -> list[int]:
    reply, changed = mail.call("get_counts_per_priority", [(priority,) for priority in priorities])
    assert changed == {}
    return list(reply)


def test_counts_come_in_the_order_asked(mail: Queue) -> None:
    mail.add(*(NewJob(priority=priority) for priority in (0, 0, 1, 2, 2, 2, HIGHEST)))
    mail.add(NewJob(priority=3, delay=500))
    assert counts(mail, HIGHEST, 2, 0, 1, 3, 2) == [1, 3, 2, 1, 0, 3]
    assert counts(mail) == []


@pytest.mark.leaves_keys_broken("ids without hashes")
def test_all_places_of_a_priority_count(mail: Queue) -> None:
    places = {"first": 5 * PRIORITY, "last": 6 * PRIORITY - 1, "next": 6 * PRIORITY}
    mail.redis.zadd(mail.key("prioritized"), places)
    assert counts(mail, 4, 5, 6) == [0, 2, 1]


@pytest.mark.leaves_keys_broken("ids without hashes")
def test_what_an_old_client_paused_is_waiting_too(mail: Queue) -> None:
    mail.redis.rpush(mail.key("wait"), "a")
    mail.redis.rpush(mail.key("paused"), "b", "c")
    assert counts(mail, 0, 1) == [3, 0]
