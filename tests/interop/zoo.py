"""A queue with every kind of job in it, written key by key, so that two implementations can be given the same one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.support.keyspace import keyspace

if TYPE_CHECKING:
    import redis as redis_py

# Long past. Whatever an operation stamps is of today.
OLD: Final = 1_700_000_000_000
SLOT: Final = 4096
PRIORITY: Final = 2**32
MINUTE: Final = 60_000
LONG_MS: Final = 600_000

SETTINGS: Final[dict[str, dict[str, str]]] = {
    "running": {},
    "paused": {"paused": "1"},
    "at its global concurrency": {"concurrency": "2"},
}
IDS: Final = (
    *("w1", "w2", "w3", "w:x:y", "repeat:s1:1000", "repeat:s1:900", "l1", "l2", "lost"),
    *("pr1", "pr2", "pr3", "repeat:s2:2000", "d1", "d2", "d3", "repeat:s3:3000"),
    *(f"a{n}" for n in range(1, 7)),
    *(f"p{n}" for n in range(1, 14)),
    *("k1", "k2", "k3", "k4", "k7", "k8", "k9", "g1", "g2", "g3", "g4"),
    *(f"c{n}" for n in range(1, 7)),
    *(f"f{n}" for n in range(1, 10)),
)
"""The jobs of `mail`; `l1` and `l2` are there while it is paused, as an old client leaves them."""


@dataclass(frozen=True)
class Zoo:
    """The queue ``mail`` under a prefix, with relatives in ``boss`` and under a second prefix."""

    redis: redis_py.Redis
    prefix: str

    def key(self, suffix: str, queue: str = "mail") -> str:
        return f"{self.prefix}:{queue}:{suffix}"

    def fill(self, settings: dict[str, str], now_ms: int) -> None:
        """Writes everything anew."""
        self.empty()
        pipe = self.redis.pipeline(transaction=False)

        def job(job_id: str, *, queue: str = "mail", parent: str = "", **fields: Any) -> None:
            usual = {"name": f"job {job_id}", "data": "{}", "opts": '{"attempts":0}', "timestamp": OLD}
            fields = {**usual, "delay": 0, "priority": 0, **fields}
            if parent:
                parent_queue, parent_id = parent.split("/") if "/" in parent else ("mail", parent)
                base = self.key("", parent_queue)[:-1]
                fields |= {"parentKey": f"{base}:{parent_id}"}
                fields |= {"parent": json.dumps({"id": parent_id, "queueKey": base})}
                if "finishedOn" not in fields:
                    pipe.sadd(f"{base}:{parent_id}:dependencies", self.key(job_id, queue))
            pipe.hset(self.key(job_id, queue), mapping=fields)

        def put(structure: str, ids: Iterable[str], queue: str = "mail", first: int = 0, step: int = 1) -> None:
            for n, job_id in enumerate(ids):
                if structure in ("wait", "paused", "active"):
                    pipe.lpush(self.key(structure, queue), job_id)
                else:
                    pipe.zadd(self.key(structure, queue), {job_id: first + n * step})

        for queue in ("mail", "boss", "far:mail"):
            pipe.hset(self.key("meta", queue), mapping={"opts.maxLenEvents": "10000", "version": "any"})
        pipe.set(self.key("id"), 7)
        if settings:
            pipe.hset(self.key("meta"), mapping=settings)
        for n, scheduler in enumerate(("s1", "s2", "s3"), 1):
            pipe.zadd(self.key("repeat"), {scheduler: n * 1000})
            pipe.hset(self.key(f"repeat:{scheduler}"), mapping={"name": "n", "every": "1000", "ic": "1"})

        # Standard jobs; children that wait stand among them.
        job("w1")
        job("w2", timestamp=now_ms, deid="x")
        pipe.set(self.key("de:x"), "w2")
        pipe.hset(self.key("dn:x"), mapping={"name": "n", "data": "{}", "opts": "{}", "jid": "7"})
        job("w3", processedOn=now_ms, deid="y")
        pipe.set(self.key("de:y"), "another", px=LONG_MS)
        job("w:x:y")
        job("repeat:s1:1000", rjk="s1")
        job("repeat:s1:900", rjk="s1")
        job("k1", parent="p2")
        job("k2", parent="p4")
        job("k3", parent="p5")
        job("k4", parent="p6")
        job("k7", parent="a4")
        job("k8", parent="p9")
        job("k9", parent="nobody")
        job("g1", parent="p10")
        job("g2", parent="p8")
        job("g3", parent="p12")
        job("g4", parent="p13")
        waiting = ("w1", "k1", "w2", "repeat:s1:1000", "k2", "k3", "repeat:s1:900", "w3", "k4", "w:x:y", "k7", "k8")
        put("wait", (*waiting, "k9", "g1", "g2", "g3", "g4"))
        pipe.rpush(self.key("w1:logs"), "one", "two", "three")

        # Those that run, with a lock or without.
        for job_id, parent in {"a1": "", "a2": "", "a3": "p6", "a4": "", "a5": "boss/b1", "a6": "p12"}.items():
            job(job_id, parent=parent, processedOn=OLD, ats=1)
            if job_id != "a2":
                pipe.set(self.key(f"{job_id}:lock"), "w:1", px=LONG_MS)
        put("active", ("a1", "a2", "a3", "a4", "a5", "a6"))

        job("pr1", priority=5)
        job("pr2", priority=5, timestamp=now_ms)
        job("pr3", priority=7)
        job("repeat:s2:2000", priority=5, rjk="s2")
        put("prioritized", ("pr1", "pr2", "repeat:s2:2000"), first=5 * PRIORITY + 1)
        put("prioritized", ("pr3",), first=7 * PRIORITY + 4)
        pipe.set(self.key("pc"), 4)

        job("d1", delay=10 * MINUTE, timestamp=now_ms)
        job("d2", delay=10 * MINUTE, timestamp=now_ms, priority=3, processedOn=OLD)
        job("d3", delay=20 * MINUTE, timestamp=OLD, parent="p1")
        job("repeat:s3:3000", delay=5, rjk="s3")
        put("delayed", ("d1", "d2"), first=(now_ms + 10 * MINUTE) * SLOT)
        put("delayed", ("d3",), first=(now_ms + 20 * MINUTE) * SLOT)
        put("delayed", ("repeat:s3:3000",), first=(now_ms + 30 * MINUTE) * SLOT)

        # Parents: of two; a chain up to another queue; with a priority; with a delay; with a child that runs; with
        # children everywhere; with one more level; with a failed child; with a grandchild that runs, and others that
        # have come to all kinds of ends.
        job("p1")
        pipe.sadd(self.key("p1:dependencies"), self.key("k1"))
        job("p2", parent="p3")
        job("p3", parent="boss/b2")
        job("p4", priority=4)
        job("p5", delay=20 * MINUTE)
        job("p6")
        job("p7", deid="z")
        pipe.set(self.key("de:z"), "p7")
        job("p8", parent="p7")
        job("p9")
        job("p10", parent="p7", timestamp=now_ms)
        job("p11")
        job("p12", parent="p11")
        job("p13", parent="p11")
        job("b1", queue="boss")
        job("b2", queue="boss", priority=2)
        job("k5", queue="boss", parent="p7")
        job("k6", queue="far:mail", parent="p7")
        put("waiting-children", (f"p{n}" for n in range(1, 14)), first=OLD)
        put("waiting-children", ("b1", "b2"), "boss", first=OLD)
        put("wait", ("k5",), "boss")
        put("wait", ("k6",), "far:mail")

        done = {"processedOn": OLD, "ats": 1, "atm": 1}
        job("c1", finishedOn=OLD + 1, returnvalue='"r"', stc=1, pb="w", progress="5", **done)
        job("c2", finishedOn=OLD + 2, returnvalue="null", parent="p7", **done)
        job("c3", finishedOn=OLD + 3, returnvalue="1", priority=5, deid="q", **done)
        job("c4", finishedOn=OLD + 4, returnvalue="1", opts='{"attempts":0,"lifo":true}', **done)
        job("c5", finishedOn=now_ms, returnvalue="1", **done)
        job("c6", finishedOn=OLD + 5, returnvalue="1", parent="p13", **done)
        put("completed", ("c1", "c2", "c3", "c4", "c6"), first=OLD + 1)
        put("completed", ("c5",), first=now_ms)
        pipe.hset(self.key("p7:processed"), self.key("c2"), "null")
        pipe.rpush(self.key("c1:logs"), "one")
        ended = {**done, "failedReason": "why", "stacktrace": '["x"]'}
        job("f1", finishedOn=OLD + 1, **ended)
        job("f2", finishedOn=OLD + 2, parent="p7", **ended)
        job("f3", finishedOn=OLD + 3, parent="p7", **ended)
        job("f4", finishedOn=OLD + 4, parent="p9", **ended)
        job("f5", finishedOn=OLD + 5, priority=2, **ended)
        job("f6", finishedOn=now_ms, opts='{"attempts":0,"lifo":true}', **ended)
        job("f7", finishedOn=OLD + 6, parent="p13", **ended)
        job("f8", finishedOn=OLD + 7, parent="p13", **ended)
        job("f9", finishedOn=OLD + 8, parent="p13", **ended)
        put("failed", ("f1", "f2", "f3", "f4", "f5", "f7", "f8", "f9"), first=OLD + 1)
        put("failed", ("f6",), first=now_ms)
        pipe.hset(self.key("p7:failed"), self.key("f2"), "why")
        pipe.zadd(self.key("p7:unsuccessful"), {self.key("f3"): OLD + 3})
        pipe.sadd(self.key("p9:dependencies"), self.key("f4"))
        pipe.hset(self.key("p13:processed"), self.key("c6"), "1")
        pipe.hset(self.key("p13:failed"), self.key("f7"), "why")
        pipe.zadd(self.key("p13:unsuccessful"), {self.key("f8"): OLD + 7})
        pipe.sadd(self.key("p13:dependencies"), self.key("f9"))

        job("lost")
        if "paused" in settings:
            job("l1")
            job("l2")
            put("paused", ("l1", "l2"))
        pipe.execute()

    def empty(self) -> None:
        """Deletes everything."""
        keys: Any = self.redis.keys(f"{self.prefix}:*")
        if keys:
            self.redis.delete(*keys)

    def picture(self, now_ms: int) -> dict[str, Any]:
        """All keys; the prefix by another name, and moments of today by their distance from ``now_ms`` in minutes."""

        def told(value: Any) -> Any:
            if isinstance(value, dict):
                return {told(name): told(item) for name, item in value.items()}
            if isinstance(value, list | set):
                return sorted(map(told, value)) if isinstance(value, set) else list(map(told, value))
            if isinstance(value, float):
                slot = value % 1 if value < SLOT**4 else value % SLOT
                away = (value / SLOT if value >= SLOT**4 else value) - now_ms
                return f"{away / MINUTE:.0f} min, slot {slot}" if abs(away) < 60 * MINUTE else value
            text = str(value).replace(f"{self.prefix}:", "S:")
            return _MOMENT.sub(lambda found: _away(found[0], now_ms), text)

        return {told(key): told(kept._asdict()) for key, kept in keyspace(self.redis, self.prefix).items()}


# Milliseconds within a text.
_MOMENT: Final = re.compile(r"(?<!\d)\d{13}(?!\d)")


def _away(digits: str, now_ms: int) -> str:
    away = (int(digits) - now_ms) / MINUTE
    return f"{away:.0f} min" if abs(away) < 60 else digits
