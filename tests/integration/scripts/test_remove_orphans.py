"""``remove_orphans``: jobs in no state go."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import LONG_MS, NOW, Called, NewJob, Queue, stored
from tests.integration.scripts.test_remove_job import PLACES, put


def remove(mail: Queue, *ids: str, limit: int = 1000) -> Called:
    return mail.call("remove_orphans", [(job_id,) for job_id in ids], limit=limit)


def test_a_job_in_no_state(mail: Queue) -> None:
    mail.store("a")
    mail.redis.rpush(mail.key("a:logs"), "line")
    mail.redis.sadd(mail.key("a:dependencies"), "x:y:1")
    gone = dict.fromkeys(("a", "a:logs", "a:dependencies"))
    assert remove(mail, *gone, "b") == (1, gone)


@pytest.mark.leaves_keys_broken("jobs that are only put where they are looked for")
@pytest.mark.parametrize("place", PLACES)
def test_a_job_in_a_state_stays(mail: Queue, place: str) -> None:
    put(mail, place, "a")
    assert remove(mail, "a") == (0, {})


def test_a_limit(mail: Queue) -> None:
    for job_id in "abc":
        mail.store(job_id)
    assert remove(mail, *"abc", limit=2) == (2, {"a": None, "b": None})
    assert remove(mail, *"abc", limit=2) == (1, {"c": None})


def test_what_is_no_job_stays(mail: Queue) -> None:
    everything = {
        "meta": {"opts.maxLenEvents": 10000, "version": "x"},
        "metrics:completed": {"count": 1, "prevTS": NOW, "prevCount": 0},
        "metrics:failed": {"count": 1, "prevTS": NOW, "prevCount": 0},
        "repeat:often": {**stored(), "ic": 3},
        "dn:x": {"name": "n", "data": "{}", "opts": "{}", "jid": 7},
        "dn:y": {**stored(), "jid": 7},
    }
    for suffix, fields in everything.items():
        mail.put(suffix, fields)
    mail.redis.zadd(mail.key("repeat"), {"often": NOW})
    mail.redis.set(mail.key("id"), 7)
    mail.redis.set(mail.key("de:x"), 7, px=LONG_MS)
    mail.redis.xadd(mail.key("events"), {"event": "paused"})
    assert remove(mail, *mail.snapshot()) == (0, {})


def test_a_job_that_a_worker_runs_stays(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.redis.delete(mail.key("active"))
    assert remove(mail, "a") == (0, {})
    mail.redis.lpush(mail.key("active"), "a")


@pytest.mark.leaves_keys_broken("a job in no state")
@pytest.mark.parametrize("field", ["name", "data", "timestamp"])
def test_half_a_job_is_none(mail: Queue, field: str) -> None:
    mail.store("a")
    mail.redis.hdel(mail.key("a"), field)
    assert remove(mail, "a") == (0, {})


def test_a_deduplication_window_goes_with_its_owner(mail: Queue) -> None:
    mail.store("a", deid="x")
    mail.redis.set(mail.key("de:x"), "a")
    mail.redis.hset(mail.key("dn:x"), "jid", 7)
    assert remove(mail, "a") == (1, {"a": None, "de:x": None, "dn:x": None})


def test_a_job_of_a_scheduler_is_a_job(mail: Queue) -> None:
    mail.store("repeat:often:5", rjk="often")
    assert remove(mail, "repeat:often:5") == (1, {"repeat:often:5": None})
