"""``get_limits``: the queue's own limits and how far they are used up."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import LONG_MS, NewJob, Queue


def test_an_empty_queue_has_none(mail: Queue) -> None:
    assert mail.call("get_limits") == ([None, None, None, 0, 0, -2], {})


def test_all_there_is_is_told(mail: Queue) -> None:
    mail.activate(NewJob(), NewJob(), NewJob(priority=1))
    mail.put("meta", {"concurrency": 7, "max": 5, "duration": 900})
    mail.redis.set(mail.key("limiter"), 4, px=LONG_MS)
    reply, changed = mail.call("get_limits")
    assert (reply[:5], changed) == (["7", "5", "900", 3, 4], {})
    assert LONG_MS / 2 < reply[5] <= LONG_MS


def test_the_count_of_a_limit_by_hand_is_told_in_full(mail: Queue) -> None:
    mail.redis.set(mail.key("limiter"), 2**53 - 1, px=LONG_MS)
    assert mail.call("get_limits").reply[4] == 2**53 - 1


@pytest.mark.leaves_keys_broken("a limiter that never expires, and is no number")
@pytest.mark.parametrize(("counter", "started"), [("3", 3), ("many", 0)])
def test_a_counter_that_does_not_end(mail: Queue, counter: str, started: int) -> None:
    mail.redis.set(mail.key("limiter"), counter)
    assert mail.call("get_limits") == ([None, None, None, 0, started, -1], {})
