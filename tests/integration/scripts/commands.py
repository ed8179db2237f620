"""Calling one Lua command by its name, and seeing all that it changed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis as redis_py

from tests.support.keyspace import KeyValue, keyspace
from tests.support.packed import pack, unpack
from toromq import _native

LUA: Final = Path(__file__).parents[3] / "rust/toromq-core/lua"
CODES: Final[dict[str, int]] = {
    name: code["value"] for name, code in tomllib.loads((LUA / "codes.toml").read_text())["codes"].items()
}
COMMANDS: Final = {name: (source, keys, args) for name, source, keys, args in _native.scripts()}
_SUFFIXES: Final = {
    "waiting_children": "waiting-children",
    "stalled_check": "stalled-check",
    "metrics_completed": "metrics:completed",
    "metrics_failed": "metrics:failed",
    "limiter_wake": "limiter:wake",
}

# Those that take all groups as one packed argument.
_PACKING: Final = {"add_jobs", "add_flow", "finish_and_fetch"}

# The clock of all callers. Long past, so that nothing depends on the day the tests run.
NOW: Final = 1_700_000_000_000
SLOT: Final = 4096
PRIORITY: Final = 2**32
TOKEN: Final = "w:1"
# Long enough never to run out while a test runs.
LONG_MS: Final = 600_000


class NewJob(NamedTuple):
    """One group of ``add_jobs``."""

    number: int = 0
    job_id: str = ""
    name: str = "n"
    data: str = "{}"
    opts: str = "{}"
    timestamp: int = NOW
    delay: int = 0
    priority: int = 0
    lifo: str = ""
    again: str = ""
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def group(self) -> tuple[Any, ...]:
        """Returns the values in the order of the wire."""
        rare = {"job_id": self.job_id, "delay": self.delay, "priority": self.priority, "lifo": self.lifo}
        rare = {name: value for name, value in {**rare, "again": self.again}.items() if value}
        return (self.number, self.name, self.data, self.opts, self.timestamp, {**rare, **self.more} or False)


class End(NamedTuple):
    """One group of ``finish_and_fetch``."""

    id: str
    outcome: str = "completed"
    value: str = '"ok"'
    stacktrace: str = ""
    keep: str = ""
    number: int | str = ""
    flag: str = ""
    before: int | str = ""
    token: str = TOKEN
    fields: int = 0

    def group(self) -> tuple[Any, ...]:
        """Returns the values in the order of the wire."""
        stacktrace, _, trace = self.stacktrace.partition("\n")
        more = {"stacktrace": stacktrace, "trace": trace, "keep": self.keep, "number": self.number, "flag": self.flag}
        more = {name: value for name, value in {**more, "before": self.before}.items() if value != ""}
        return (self.id, self.token, self.outcome, self.value, self.fields or False, more or False)


class Expiring(NamedTuple):
    """A value that has a time to live."""

    value: Any


class Trimmed(NamedTuple):
    """A stream that lost entries, with what is left."""

    entries: list[dict[str, str]]


class Called(NamedTuple):
    """What a command replied, and what is different since."""

    reply: Any
    changed: dict[str, Any]


class Queue:
    """One queue's keys, and the commands run on them."""

    def __init__(self, redis: redis_py.Redis, prefix: str, name: str = "mail") -> None:
        """Writes nothing."""
        self.redis = redis
        self.prefix = prefix
        self.base = f"{prefix}:{name}:"

    def key(self, suffix: str) -> str:
        """Returns a full key name."""
        return self.base + suffix

    def call(
        self,
        name: str,
        groups: Iterable[tuple[Any, ...]] = (),
        *,
        job: str = "",
        at: Mapping[str, str] | None = None,
        **scalars: Any,
    ) -> Called:
        """Runs a command; ``job`` is whose keys it takes, where it takes a job's, and ``at`` says what stands behind a
        key that is another one from call to call. Every scalar must be given."""
        source, keys, args = COMMANDS[name]
        assert sorted(scalars) == sorted(arg for arg in args if arg != "base" and not arg.endswith("..")), name
        groups = list(groups)
        rest = [value for group in groups for value in group]
        assert not rest or args[-1].endswith(".."), f"{name} takes no repeated arguments"
        if name in _PACKING and rest:
            rest = [pack(rest)]
        suffixes = {**_SUFFIXES, "job": job, "logs": f"{job}:logs", **(at or {})}
        key_names = [self.key(suffixes.get(key, key)) for key in keys]
        values = [self.base if arg == "base" else scalars[arg] for arg in args if not arg.endswith("..")]
        before = self.snapshot()
        # What is packed in a reply is no text.
        undecoded = {redis_py.client.NEVER_DECODE: True}
        reply = self.redis.execute_command("EVAL", source, len(key_names), *key_names, *values, *rest, **undecoded)
        if name == "finish_and_fetch":
            reply[0] = reply[0] or [0] * len(groups)
            if reply[1]:
                reply[1][0] = _jobs(reply[1][0])
        elif name in _PACKING and isinstance(reply, list) and isinstance(reply[-1], bytes) and reply[-1][:1] > b"\x7f":
            reply[-1:] = unpack(reply[-1])
        return Called(_decoded(reply), changes(before, self.snapshot()))

    def add_jobs(self, *jobs: NewJob, since: str = "", **scalars: Any) -> Called:
        """Runs ``add_jobs``. The id of the last event, which differs in every run, is left out of the reply."""
        highest = max([job.number for job in jobs], default=0)
        defaults = {"reserve": 0, "max_events": "", "version": "toromq:test", "highest": highest}
        groups = [job.group() for job in jobs]
        called = self.call("add_jobs", groups, since=since, **{**defaults, **scalars})
        if isinstance(called.reply, list):
            del called.reply[1]
        return called

    def add(self, *jobs: NewJob) -> list[str]:
        """Adds jobs as a producer does, with numbers from the counter. Returns their ids."""
        first = int(self.redis.incrby(self.key("id"), len(jobs))) - len(jobs) + 1
        reply = self.add_jobs(*(job._replace(number=first + n) for n, job in enumerate(jobs))).reply
        return [answer[0] if isinstance(answer, list) else answer for answer in reply[1:]]

    def finish(self, *ends: End, **scalars: Any) -> Called:
        """Runs ``finish_and_fetch``; without more it fetches nothing."""
        defaults = {"now_ms": NOW, "want": 0, "token": "w:2", "lock_duration_ms": LONG_MS, "worker_name": ""}
        limits = {"limiter_max": "", "limiter_duration": "", "metrics_points": ""}
        groups = [end.group() for end in ends]
        return self.call("finish_and_fetch", groups, **{**defaults, **limits, **scalars})

    def activate(self, *jobs: NewJob, token: str = TOKEN) -> None:
        """Adds jobs and makes all of them active, the first one first. No marker stays behind."""
        self.add(*jobs)
        self.finish(want=len(jobs), token=token)
        assert self.redis.exists(self.key("wait"), self.key("prioritized")) == 0
        self.redis.zrem(self.key("marker"), "0")

    def store(self, suffix: str, **fields: Any) -> None:
        """Stores a job hash and nothing else."""
        self.put(suffix, stored(**fields))

    def store_completed(self, suffix: str) -> None:
        """Stores a job that has run."""
        self.store(suffix, atm=1, ats=1, returnvalue="1", finishedOn=NOW)
        self.redis.zadd(self.key("completed"), {suffix: NOW})

    def put(self, suffix: str, fields: Mapping[str, Any]) -> None:
        """Writes fields of a hash; none of them is no call."""
        if fields:
            self.redis.hset(self.key(suffix), mapping={name: str(value) for name, value in fields.items()})

    def hash(self, suffix: str) -> dict[str, str]:
        """Returns a hash."""
        return {str(name): str(value) for name, value in self.redis.hgetall(self.key(suffix)).items()}

    def snapshot(self) -> dict[str, KeyValue]:
        """Returns all keys of the prefix, those of this queue by their suffix."""
        everything = keyspace(self.redis, self.prefix)
        return {key.removeprefix(self.base).removeprefix(f"{self.prefix}:"): kept for key, kept in everything.items()}


def _jobs(pieces: list[Any]) -> list[list[Any]]:
    """The jobs of a reply: packed, but for large values, which stand in a list behind and are False in their places."""
    large = iter(pieces.pop() if pieces and isinstance(pieces[-1], list) else [])
    values = [value for piece in pieces for value in unpack(piece)]
    jobs = [values[at : at + 3] for at in range(0, len(values), 3)]
    for _, _, fields in jobs:
        fields[:] = [next(large) if value is False else value for value in fields]
    assert not list(large)
    return jobs


def _decoded(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_decoded(part) for part in reply]
    return reply.decode() if isinstance(reply, bytes) else reply


def stored(**fields: Any) -> dict[str, str]:
    """Returns a job hash as ``NewJob()`` becomes one, with some fields different."""
    usual = {"name": "n", "data": "{}", "opts": "{}", "timestamp": NOW, "delay": 0, "priority": 0}
    return {name: str(value) for name, value in {**usual, **fields}.items()}


def flat(fields: Mapping[str, str]) -> list[str]:
    """Returns a hash as scripts reply it."""
    return [text for pair in fields.items() for text in pair]


def event(name: str, job_id: str = "", /, **fields: str) -> dict[str, str]:
    """Returns an entry of the events stream."""
    return {"event": name, **({"jobId": job_id} if job_id else {}), **fields}


def changes(before: Mapping[str, KeyValue], after: Mapping[str, KeyValue]) -> dict[str, Any]:
    """Returns what is different, by key: ``None`` for a key that is gone, the fields that changed of a hash (``None``
    for those that are gone), the entries that were appended to a stream, and all of any other value."""
    changed: dict[str, Any] = {}
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        changed[key] = None if new is None else _difference(old, new)
    return changed


def _difference(old: KeyValue | None, new: KeyValue) -> Any:
    value = new.value
    if new.type == "hash":
        was = old.value if old is not None and old.type == "hash" else {}
        value = {name: value.get(name) for name in {**was, **value} if was.get(name) != value.get(name)}
    elif new.type == "stream":
        was = old.value if old is not None and old.type == "stream" else []
        value = value[len(was) :] if value[: len(was)] == was else Trimmed(value)
    return Expiring(value) if new.has_ttl else value
