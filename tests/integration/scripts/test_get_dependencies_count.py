"""``get_dependencies_count``: how many children a job has."""

from __future__ import annotations

from tests.integration.scripts.commands import Queue
from tests.integration.scripts.families import waits


def test_children_by_what_became_of_them(mail: Queue) -> None:
    waits(mail, "p")
    mail.redis.hset(mail.key("p:processed"), "x:y:1", "1")
    mail.redis.sadd(mail.key("p:dependencies"), "x:y:2", "x:y:3")
    mail.redis.hset(mail.key("p:failed"), mapping={"x:y:4": "", "x:y:5": "", "x:y:6": ""})
    mail.redis.zadd(mail.key("p:unsuccessful"), {f"x:y:{n}": n for n in (7, 8, 9, 10)})
    assert count(mail, "p") == [1, 2, 3, 4]
    assert count(mail, "nobody") == [0, 0, 0, 0]


def count(mail: Queue, job_id: str) -> list[int]:
    names = {"processed": "processed", "dependencies": "dependencies", "ignored": "failed"}
    at = {key: f"{job_id}:{suffix}" for key, suffix in {**names, "unsuccessful": "unsuccessful"}.items()}
    reply, changed = mail.call("get_dependencies_count", at=at)
    assert changed == {}
    return list(reply)
