"""Reading the keys of one queue in tests: what both implementations must leave behind alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tests.support.keyspace import keyspace

if TYPE_CHECKING:
    import redis as redis_py

def _apart(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# Set by clocks, so two runs never agree; everything else must.
_TIMES = ("timestamp", "processedOn", "finishedOn")


@dataclass(frozen=True)
class QueueKeys:
    """The keys of one queue, through a plain client."""

    redis: redis_py.Redis
    prefix: str
    name: str

    def __call__(self, suffix: str) -> str:
        return f"{self.prefix}:{self.name}:{suffix}"

    def hash(self, job_id: str) -> dict[str, Any]:
        """A job's hash with ``opts`` taken apart, times as True, and the stack traces as their number."""
        fields = cast("dict[str, Any]", self.redis.hgetall(self(job_id)))
        for name in _TIMES:
            if name in fields:
                assert fields[name].isdigit(), (name, fields[name])
                fields[name] = True
        if "opts" in fields:
            fields["opts"] = json.loads(fields["opts"])
        if "stacktrace" in fields:
            fields["stacktrace"] = len(json.loads(fields["stacktrace"]))
        return fields

    def events(self, job_id: str | None = None) -> list[tuple[str, dict[str, str]]]:
        """The event stream, oldest first: names and further fields, of one job (then without ``jobId``) or of all."""
        entries = []
        for _, fields in cast("list[tuple[str, dict[str, str]]]", self.redis.xrange(self("events"))):
            rest = {name: value for name, value in fields.items() if name != "event"}
            if job_id is None or rest.pop("jobId", None) == job_id:
                entries.append((fields["event"], rest))
        return entries

    def names(self, job_id: str | None = None) -> list[str]:
        """The names of the events, oldest first."""
        return [name for name, _ in self.events(job_id)]

    def list(self, suffix: str) -> list[str]:
        """A list from head to tail, or the members of a sorted set by score."""
        if self.redis.type(self(suffix)) == "zset":
            return cast("list[str]", self.redis.zrange(self(suffix), 0, -1))
        return cast("list[str]", self.redis.lrange(self(suffix), 0, -1))

    def scores(self, suffix: str) -> dict[str, int]:
        """The members of a sorted set with their scores, in their order."""
        pairs: Any = self.redis.zrange(self(suffix), 0, -1, withscores=True)
        return {member: int(score) for member, score in pairs}

    def text(self, suffix: str) -> str:
        """The text of a string key, empty if there is none."""
        return str(self.redis.get(self(suffix)) or "")

    def picture(self) -> dict[str, Any]:
        """All keys, to compare two queues: JSON taken apart, and each queue called by the same name.

        Without the settings, which name their writer, and the counter of ids, from which we take some ahead.
        """
        found: dict[str, Any] = {}
        base = self("")
        for key, kept in keyspace(self.redis, self.prefix).items():
            if not key.startswith(base) or key in (self("meta"), self("id")):
                continue
            value = kept.value
            if kept.type == "hash":
                value = {name: _apart(text) for name, text in value.items()}
            # The name stands in full keys only, in whatever they are part of.
            text = json.dumps([value if not isinstance(value, set) else sorted(value), kept.has_ttl])
            found[key.removeprefix(base)] = json.loads(text.replace(base, "Q:").replace(base[:-1] + '"', 'Q"'))
        return found

    def idle_workers(self) -> int:
        """How many clients block on a marker under this prefix's workers' names."""
        return sum(
            1
            for client in self.redis.client_list()
            if client["name"].startswith(f"{self.prefix}:")
            and client["cmd"].lower() == "bzpopmin"
            and "b" in client["flags"]
        )
