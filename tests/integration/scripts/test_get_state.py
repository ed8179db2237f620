"""``get_state``: where a job is, asked in the order of the wire."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.integration.scripts.commands import NOW, PRIORITY, Queue
from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.leaves_keys_broken("ids without hashes, some of them in many states")


def _zset(suffix: str, score: float = NOW) -> Callable[[Queue], Any]:
    return lambda mail: mail.redis.zadd(mail.key(suffix), {"a": score, "other": score})


def _list(suffix: str) -> Callable[[Queue], Any]:
    return lambda mail: mail.redis.rpush(mail.key(suffix), "x", "a", "y")


# In the order in which the states are looked at.
STATES: Final = [
    ("completed", _zset("completed")),
    ("failed", _zset("failed")),
    ("delayed", _zset("delayed")),
    ("prioritized", _zset("prioritized", PRIORITY)),
    ("active", _list("active")),
    ("waiting", _list("wait")),
    ("waiting", _list("paused")),
    ("waiting-children", _zset("waiting-children", 0)),
]


@pytest.mark.parametrize(("state", "put"), STATES)
def test_a_state(mail: Queue, state: str, put: Callable[[Queue], Any]) -> None:
    put(mail)
    assert mail.call("get_state", job_id="a") == (state, {})
    assert mail.call("get_state", job_id="b") == ("unknown", {})


@pytest.mark.parametrize("first", range(len(STATES)))
def test_the_first_state_counts(mail: Queue, first: int) -> None:
    for _, put in STATES[first:]:
        put(mail)
    assert mail.call("get_state", job_id="a").reply == STATES[first][0]


@pytest.mark.parametrize("place", ["active", "wait", "paused"])
def test_servers_that_cannot_look_into_a_list(mail: Queue, redisbox: RedisBox, place: str) -> None:
    user = f"u{uuid.uuid4().hex}"
    mail.redis.acl_setuser(user, enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-lpos"])
    try:
        limited = Queue(redisbox.client(username=user, password="any"), mail.prefix)
        mail.redis.rpush(mail.key(place), "x", "a", "y")
        state = "active" if place == "active" else "waiting"
        assert limited.call("get_state", job_id="a") == (state, {})
        assert limited.call("get_state", job_id="b") == ("unknown", {})
    finally:
        mail.redis.acl_deluser(user)


def test_a_hash_without_a_place(mail: Queue) -> None:
    mail.store("a")
    assert mail.call("get_state", job_id="a") == ("unknown", {})
