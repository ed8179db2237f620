"""``adopt_jobs``: a worker finds what a lost reply made its own."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import LONG_MS, NOW, Called, NewJob, Queue, flat, stored

STARTED = stored(ats=1, processedOn=NOW)


def adopt(mail: Queue, *held: str, worker_token: str = "w:") -> Called:
    return mail.call("adopt_jobs", [(id,) for id in held], worker_token=worker_token, lock_duration_ms=10 * LONG_MS)


def adopted(reply: list[list[object]]) -> dict[object, object]:
    return {id: token for id, token, _ in reply}


def test_no_job_is_active(mail: Queue) -> None:
    mail.add(NewJob())
    assert adopt(mail) == ([], {})


def test_a_job_the_worker_does_not_know_of(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a", data="[1]"), token="w:7")
    mail.redis.sadd(mail.key("stalled"), "a")
    reply, changed = adopt(mail)
    fields = mail.hash("a")
    assert fields == STARTED | {"data": "[1]"}
    assert reply == [["a", "w:7", flat(fields)]]
    assert changed == {"stalled": None}
    assert LONG_MS < mail.redis.pttl(mail.key("a:lock")) <= 10 * LONG_MS


def test_held_jobs_and_those_of_others_stay_as_they_are(mail: Queue) -> None:
    tokens = {"a": "w:1", "b": "v:1", "c": "w:2", "d": None, "e": "w:3", "f": "x:w:", "g": "w"}
    mail.activate(*(NewJob(job_id=id) for id in tokens))
    for id, token in tokens.items():
        mail.redis.delete(mail.key(f"{id}:lock"))
        if token is not None:
            mail.redis.set(mail.key(f"{id}:lock"), token, px=LONG_MS)
    mail.redis.sadd(mail.key("stalled"), *tokens)
    reply, changed = adopt(mail, "a", "x")
    assert adopted(reply) == {"e": "w:3", "c": "w:2"}
    assert changed == {"stalled": {"a", "b", "d", "f", "g"}}
    assert [id for id in tokens if mail.redis.pttl(mail.key(f"{id}:lock")) > LONG_MS] == ["c", "e"]


def test_all_are_held(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    assert adopt(mail, "a", "b") == ([], {})


def test_a_locked_job_that_is_not_active_is_not_found(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    mail.redis.set(mail.key("a:lock"), "w:1", px=LONG_MS)
    assert adopt(mail) == ([], {})
    mail.redis.delete(mail.key("a:lock"))


@pytest.mark.leaves_keys_broken("a key that holds no job, and an id without hash")
def test_broken_jobs(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abc"))
    mail.redis.delete(mail.key("b"), mail.key("c"))
    mail.redis.set(mail.key("b"), "no job")
    mail.redis.sadd(mail.key("stalled"), "b")
    reply, changed = adopt(mail)
    assert reply == [["c", "w:1", []], ["a", "w:1", flat(mail.hash("a"))]]
    assert changed == {}
    assert mail.redis.pttl(mail.key("b:lock")) <= LONG_MS


def test_more_than_one_slice_of_a_thousand(mail: Queue) -> None:
    ids = [f"j{n}" for n in range(1002)]
    for first in range(0, 1002, 334):
        mail.activate(*(NewJob(job_id=id) for id in ids[first : first + 334]))
    reply, changed = adopt(mail, *(id for id in ids if id not in ("j0", "j1", "j2", "j3", "j1001")))
    assert list(adopted(reply)) == ["j1001", "j3", "j2", "j1", "j0"]
    assert changed == {}
