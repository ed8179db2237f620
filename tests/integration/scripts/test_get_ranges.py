"""``get_ranges``: ids, by state."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NOW, Queue
from tests.integration.scripts.test_get_jobs import STATES, put

pytestmark = pytest.mark.leaves_keys_broken("jobs that are only put where they are looked for")


def ids(mail: Queue, *states: str, start: int = 0, last: int = -1, asc: bool = True) -> str:
    groups = [(state,) for state in states]
    reply, changed = mail.call("get_ranges", groups, start=start, last=last, asc="1" if asc else "")
    assert changed == {}
    return "".join(reply)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("start", "last", "oldest", "newest"),
    [
        (0, -1, "abcde", "edcba"),
        (0, 0, "a", "e"),
        (1, 3, "bcd", "dcb"),
        (3, 9, "de", "ba"),
        (0, -2, "abcd", "edcb"),
        (-2, -1, "de", "ba"),
        (-9, 1, "ab", "ed"),
        (5, 9, "", ""),
        (3, 1, "", ""),
    ],
)
def test_a_range(mail: Queue, state: str, start: int, last: int, oldest: str, newest: str) -> None:
    put(mail, state, "abcde")
    assert ids(mail, state, start=start, last=last) == oldest
    assert ids(mail, state, start=start, last=last, asc=False) == newest


def test_several_states_come_one_after_the_other(mail: Queue) -> None:
    put(mail, "waiting", "abc")
    put(mail, "failed", "xyz")
    assert ids(mail, "failed", "waiting", last=1) == "xyab"
    assert ids(mail, "failed", "waiting", last=1, asc=False) == "zycb"
    assert ids(mail) == ""


def test_each_id_comes_once(mail: Queue) -> None:
    put(mail, "waiting", "abc")
    put(mail, "completed", "bx")
    assert ids(mail, "waiting", "completed", "waiting") == "abcx"


def test_what_an_old_client_paused_is_waiting_too(mail: Queue) -> None:
    put(mail, "waiting", "ab")
    put(mail, "paused", "cd")
    put(mail, "active", "e")
    assert ids(mail, "waiting", "active") == "abcde"
    assert ids(mail, "active") == "e"


def test_ids_without_a_job_are_told(mail: Queue) -> None:
    mail.redis.zadd(mail.key("completed"), {"c": NOW})
    assert ids(mail, "completed") == "c"
