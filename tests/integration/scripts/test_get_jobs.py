"""``get_jobs``: pages of jobs, by state."""

from __future__ import annotations

from typing import Final

import pytest

from tests.integration.scripts.commands import NOW, PRIORITY, Queue, flat, stored

pytestmark = pytest.mark.leaves_keys_broken("jobs that are only put where they are looked for")
LISTS: Final = {"waiting": "wait", "active": "active"}
SETS: Final = ("prioritized", "delayed", "waiting-children", "completed", "failed")
STATES: Final = (*LISTS, *SETS)


def put(mail: Queue, state: str, ids: str, *, without_hash: str = "") -> None:
    """Puts jobs into a state, the oldest first."""
    if state in SETS:
        mail.redis.zadd(mail.key(state), {id: PRIORITY + n for n, id in enumerate(ids)})
    else:
        mail.redis.lpush(mail.key(LISTS.get(state, state)), *ids)
    for id in set(ids) - set(without_hash):
        mail.store(id, name=f"job {id}")


def page(mail: Queue, *states: str, start: int = 0, last: int = -1, asc: bool = True) -> str:
    groups = [(state,) for state in states]
    reply, changed = mail.call("get_jobs", groups, start=start, last=last, asc="1" if asc else "")
    assert changed == {}
    return "".join(id for id, _ in reply)


@pytest.mark.parametrize("state", STATES)
def test_all_that_is_stored_is_told(mail: Queue, state: str) -> None:
    put(mail, state, "a")
    mail.redis.hset(mail.key("a"), "atm", 3)
    reply, changed = mail.call("get_jobs", [(state,)], start=0, last=-1, asc="")
    assert reply == [["a", flat(stored(name="job a", atm=3))]]
    assert changed == {}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("start", "last", "oldest", "newest"),
    [
        (0, -1, "abcde", "edcba"),
        (0, 0, "a", "e"),
        (0, 1, "ab", "ed"),
        (1, 3, "bcd", "dcb"),
        (3, 9, "de", "ba"),
        (2, -1, "cde", "cba"),
        (5, 9, "", ""),
        (9, -1, "", ""),
    ],
)
def test_a_page(mail: Queue, state: str, start: int, last: int, oldest: str, newest: str) -> None:
    put(mail, state, "abcde")
    assert page(mail, state, start=start, last=last) == oldest
    assert page(mail, state, start=start, last=last, asc=False) == newest


def test_several_states_come_one_after_the_other(mail: Queue) -> None:
    put(mail, "waiting", "abc")
    put(mail, "failed", "xyz")
    put(mail, "active", "m")
    assert page(mail, "failed", "waiting", "active", last=1) == "xyabm"
    assert page(mail, "active", "failed", "waiting", last=1, asc=False) == "mzycb"
    assert page(mail) == ""


def test_each_job_comes_once(mail: Queue) -> None:
    put(mail, "waiting", "abc")
    put(mail, "completed", "bx")
    assert page(mail, "waiting", "completed", "waiting") == "abcx"


def test_what_an_old_client_paused_is_waiting_too(mail: Queue) -> None:
    put(mail, "waiting", "ab")
    put(mail, "paused", "cd")
    put(mail, "active", "e")
    assert page(mail, "waiting", "active") == "abcde"
    assert page(mail, "waiting", last=0, asc=False) == "bd"
    assert page(mail, "active") == "e"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("asc", [True, False])
def test_ids_without_a_job_are_passed_over(mail: Queue, state: str, asc: bool) -> None:
    ids = "abcdefgh" if asc else "hgfedcba"
    put(mail, state, ids, without_hash="acde")
    mail.redis.set(mail.key("e"), "no job")
    assert page(mail, state, last=2, asc=asc) == "bfg"
    assert page(mail, state, start=1, last=2, asc=asc) == "bf"
    assert page(mail, state, last=9, asc=asc) == "bfgh"
    assert page(mail, state, asc=asc) == "bfgh"


@pytest.mark.parametrize(("missing", "found"), [(4, "y"), (5, "")])
def test_a_page_is_filled_up_in_five_rounds(mail: Queue, missing: int, found: str) -> None:
    gone = "abcdefgh"[:missing]
    put(mail, "completed", f"{gone}yz", without_hash=gone)
    assert page(mail, "completed", last=0) == found


def test_markers_of_old_clients_are_no_jobs(mail: Queue) -> None:
    put(mail, "waiting", "ab")
    mail.redis.rpush(mail.key("wait"), "0:0")
    mail.redis.zadd(mail.key("completed"), {"c": NOW})
    assert page(mail, "waiting", "completed") == "ab"
