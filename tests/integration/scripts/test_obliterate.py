"""``obliterate``: what is left of a queue whose jobs are gone."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.integration.scripts.commands import CODES, NOW, Called, NewJob, Queue, event
from tests.integration.scripts.families import waits

KEYS: Final = {
    "lists": ("wait", "paused", "active", "metrics:completed:data", "metrics:failed:data"),
    "zsets": ("prioritized", "delayed", "waiting-children", "completed", "failed", "repeat", "marker"),
    "hashes": ("metrics:completed", "metrics:failed"),
    "strings": ("id", "pc", "limiter", "stalled-check", "priority", "delay"),
}
STATES: Final = ("wait", "paused", "active", "prioritized", "delayed", "waiting-children", "completed", "failed")


def obliterate(mail: Queue, *keys: str, check: str = "", force: str = "") -> Called:
    return mail.call("obliterate", [(mail.key(key),) for key in keys], check=check, force=force)


def everything(mail: Queue) -> None:
    """One of each key that a queue may have beside its jobs."""
    mail.put("meta", {"paused": 1, "concurrency": 3, "opts.maxLenEvents": 10, "version": "x"})
    for suffix in ("metrics:completed:data", "metrics:failed:data"):
        mail.redis.lpush(mail.key(suffix), 1)
    for suffix in KEYS["hashes"]:
        mail.redis.hset(mail.key(suffix), "count", 1)
    for suffix in KEYS["strings"]:
        mail.redis.set(mail.key(suffix), 1)
    mail.redis.sadd(mail.key("stalled"), "a")
    mail.redis.zadd(mail.key("marker"), {"1": NOW})
    mail.redis.xadd(mail.key("events"), {"event": "paused"})


def test_a_queue_that_is_not_paused(mail: Queue) -> None:
    mail.add(NewJob())
    for check in ("", "1"):
        assert obliterate(mail, "id", check=check, force="1") == (CODES["QUEUE_NOT_PAUSED"], {})
    nothing = Queue(mail.redis, mail.prefix, "nothing")
    assert obliterate(nothing) == (CODES["QUEUE_NOT_PAUSED"], {})


def test_active_jobs(mail: Queue) -> None:
    mail.activate(NewJob())
    mail.call("pause")
    for check in ("", "1"):
        assert obliterate(mail, "id", check=check) == (CODES["ACTIVE_JOBS"], {})
    assert obliterate(mail, check="1", force="1") == (0, {})


def test_a_check_deletes_nothing(mail: Queue) -> None:
    mail.add(NewJob())
    mail.call("pause")
    assert obliterate(mail, "id", check="1") == (0, {})


def test_nothing_remains(mail: Queue) -> None:
    everything(mail)
    mail.redis.set(mail.key("de:x"), "a")
    mail.redis.hset(mail.key("dn:x"), "jid", "7")
    reply, _ = obliterate(mail, "de:x", "dn:x")
    assert (reply, mail.snapshot()) == (0, {})


def test_job_schedulers_go(mail: Queue) -> None:
    mail.put("meta", {"paused": 1})
    for scheduler in ("often", "with:colon"):
        mail.redis.zadd(mail.key("repeat"), {scheduler: NOW})
        mail.redis.hset(mail.key(f"repeat:{scheduler}"), "ic", 1)
    reply, _ = obliterate(mail)
    assert (reply, mail.snapshot()) == (0, {})


def test_other_queues_stay(mail: Queue) -> None:
    other = Queue(mail.redis, mail.prefix, "mailbox")
    other.add(NewJob())
    mail.call("pause")
    _, changed = obliterate(mail)
    assert changed == {"meta": None, "events": None}


@pytest.mark.leaves_keys_broken("half of a queue")
@pytest.mark.parametrize("state", STATES)
def test_jobs_that_came_meanwhile_keep_the_queue(mail: Queue, state: str) -> None:
    everything(mail)
    mail.redis.zadd(mail.key("repeat"), {"often": NOW})
    mail.redis.hset(mail.key("repeat:often"), "ic", 1)
    if state in KEYS["lists"]:
        mail.redis.lpush(mail.key(state), "a")
    else:
        mail.redis.zadd(mail.key(state), {"a": NOW})
    gone: dict[str, Any] = {"repeat": None, "repeat:often": None}
    assert obliterate(mail, "id", force="1") == (1, gone)
    assert obliterate(mail, "id", force="1") == (1, {})


def test_a_parent_that_waits_keeps_the_queue(mail: Queue) -> None:
    waits(mail, "p")
    mail.redis.sadd(mail.key("p:dependencies"), "x:y:1")
    mail.call("pause")
    assert obliterate(mail) == (1, {})


def test_the_numbers_start_again(mail: Queue) -> None:
    mail.redis.set(mail.key("id"), 7)
    mail.call("pause")
    obliterate(mail)
    assert mail.add(NewJob()) == ["1"]
    # And it is no longer paused.
    assert mail.redis.zscore(mail.key("marker"), "0") == 0
    assert mail.snapshot()["events"].value == [event("added", "1", name="n"), event("waiting", "1")]
