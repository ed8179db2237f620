"""What must be true of a queue's keys at every moment, whoever wrote them.

:func:`check_invariants` reads all keys under a prefix in one atomic step and returns one sentence for every lie it
finds; an honest keyspace gives an empty list. Only what the wire guarantees is checked. Where an operation of the
reference implementation legitimately breaks a rule, the rule makes room for it and says so.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from tests.support.keyspace import KeyValue, keyspace

_LISTS: Final = ("wait", "paused", "active")
_ZSETS: Final = ("prioritized", "delayed", "waiting-children", "completed", "failed")
_STATES: Final = _LISTS + _ZSETS
_QUEUE_KEYS: Final = {
    **dict.fromkeys(_LISTS, "list"),
    **dict.fromkeys(_ZSETS, "zset"),
    "stalled": "set",
    "stalled-check": "string",
    "limiter": "string",
    "limiter:wake": "stream",
    "meta": "hash",
    "marker": "zset",
    "events": "stream",
    "id": "string",
    "pc": "string",
    "repeat": "zset",
    "metrics:completed": "hash",
    "metrics:failed": "hash",
    "metrics:completed:data": "list",
    "metrics:failed:data": "list",
}
# What makes a name under the prefix a queue. Metrics alone do not: "metrics" could be a queue of a longer prefix.
_SIGNS_OF_A_QUEUE: Final = (*_STATES, "meta", "marker", "events", "id", "stalled", "repeat")
_JOB_SUBKEYS: Final = {
    "lock": "string",
    "logs": "list",
    "dependencies": "set",
    "processed": "hash",
    "failed": "hash",
    "unsuccessful": "zset",
}
_ALWAYS: Final = ("name", "data", "opts", "timestamp", "delay", "priority")
_NUMBERS: Final = ("timestamp", "delay", "priority", "processedOn", "finishedOn", "ats", "atm", "stc")
_JSON: Final = ("data", "opts", "progress", "returnvalue", "stacktrace", "parent")
_FLAGS: Final = ("fpof", "cpof", "idof", "rdof")

_SLOTS_PER_MS: Final = 4096
_PRIORITY_STEP: Final = 2**32
# The latest due time whose score a double still holds exactly.
_LAST_MS: Final = 2**41
# Clients stamp times with their own clocks; on one machine those differ by less than this.
_CLOCK_SLACK_MS: Final = 1000

_CANONICAL_INTEGER: Final = re.compile(r"[1-9][0-9]*\Z")


def check_invariants(client: redis.Redis, prefix: str) -> list[str]:
    """Returns every lie the keys of all queues under a prefix tell, one sentence each.

    Args:
        client: A client with ``decode_responses=True``.
        prefix: The key prefix; it may hold colons and braces.
    """
    keys = keyspace(client, prefix)
    now_s, now_us = client.time()
    clients = [dict(entry) for entry in client.client_list()]
    lies: list[str] = []
    for queue in _queues(prefix, keys, now_s * 1000 + now_us // 1000, clients):
        for rule in _RULES:
            lies.extend(rule(queue))
    return lies


@dataclass
class _Queue:
    """One queue, taken apart."""

    prefix: str
    name: str
    keys: dict[str, KeyValue]
    everything: dict[str, KeyValue]
    now_ms: int
    clients: list[dict[str, Any]]
    structures: dict[str, list[str]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    jobs: dict[str, dict[str, str]] = field(default_factory=dict)
    subkeys: dict[tuple[str, str], KeyValue] = field(default_factory=dict)
    schedulers: dict[str, dict[str, str]] = field(default_factory=dict)
    deduplication: dict[str, KeyValue] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def key(self, suffix: str) -> str:
        return f"{self.prefix}:{self.name}:{suffix}"

    def value(self, suffix: str, default: Any) -> Any:
        """The value of a queue key, if it is there and has the right type."""
        found = self.keys.get(suffix)
        return found.value if found is not None and found.type == _QUEUE_KEYS[suffix] else default

    @property
    def meta(self) -> dict[str, str]:
        found: dict[str, str] = self.value("meta", {})
        return found

    def in_state(self, *states: str) -> Iterable[tuple[str, str, dict[str, str]]]:
        """State, id and hash of every job in the given states that has a hash."""
        for state in states:
            for job_id in dict.fromkeys(self.structures[state]):
                if job_id in self.jobs:
                    yield state, job_id, self.jobs[job_id]


def _queues(
    prefix: str, everything: dict[str, KeyValue], now_ms: int, clients: list[dict[str, Any]]
) -> Iterable[_Queue]:
    names: dict[str, dict[str, KeyValue]] = defaultdict(dict)
    for key, value in everything.items():
        # A queue name holds no colon. An empty one is the reference's relay, which is no queue.
        name, colon, suffix = key[len(prefix) + 1 :].partition(":")
        if colon and name:
            names[name][suffix] = value
    for name, keys in sorted(names.items()):
        # Anything else belongs to a queue under a longer prefix, and is checked when that prefix is.
        if any(sign in keys for sign in _SIGNS_OF_A_QUEUE):
            yield _take_apart(_Queue(prefix, name, keys, everything, now_ms, clients))


def _take_apart(queue: _Queue) -> _Queue:
    for state in _STATES:
        members = queue.value(state, [])
        if isinstance(members, dict):
            queue.scores[state] = members
        # Releases before 5.0 put markers that begin with "0:" among the waiting ids.
        queue.structures[state] = [member for member in members if not member.startswith("0:")]
        for job_id in queue.structures[state]:
            queue.places.setdefault(job_id, []).append(state)
    scheduler_ids = set(queue.value("repeat", {}))
    for suffix, value in queue.keys.items():
        if suffix in _QUEUE_KEYS:
            continue
        base, _, last = suffix.rpartition(":")
        if suffix.startswith("repeat:") and (suffix[7:] in scheduler_ids or _is_scheduler(suffix, value, queue)):
            queue.schedulers[suffix[7:]] = value.value if value.type == "hash" else {}
        elif suffix.startswith("de:") and suffix not in queue.places:
            queue.deduplication[suffix[3:]] = value
        elif suffix.startswith("dn:") and suffix not in queue.places and value.type == "hash":
            continue
        elif value.type == "hash" and (suffix in queue.places or "opts" in value.value):
            queue.jobs[suffix] = value.value
        elif base and _JOB_SUBKEYS.get(last) == value.type:
            queue.subkeys[base, last] = value
        elif value.type == "hash" and suffix and last not in _JOB_SUBKEYS:
            queue.jobs[suffix] = value.value
        else:
            queue.unknown.append(suffix)
    return queue


def _is_scheduler(suffix: str, value: KeyValue, queue: _Queue) -> bool:
    # Iterations are jobs and share the namespace; only a scheduler counts its iterations.
    return value.type == "hash" and "ic" in value.value and suffix not in queue.places


# -- The rules ---------------------------------------------------------------------------------------------------------


def _keys_have_the_right_type(queue: _Queue) -> Iterable[str]:
    for suffix, expected in _QUEUE_KEYS.items():
        found = queue.keys.get(suffix)
        if found is not None and found.type != expected:
            yield f"{queue.key(suffix)} is a {found.type}, expected a {expected}."
    for dedup_id, found in queue.deduplication.items():
        if found.type != "string":
            yield f"{queue.key('de:' + dedup_id)} is a {found.type}, expected a string."


def _keys_have_a_known_shape(queue: _Queue) -> Iterable[str]:
    for suffix in queue.unknown:
        yield f"{queue.key(suffix)} is a {queue.keys[suffix].type} of a shape the wire does not have."
    for job_id, kind in queue.subkeys:
        if kind != "lock" and job_id not in queue.jobs:
            yield f"{queue.key(f'{job_id}:{kind}')} belongs to job {job_id}, expected a hash of that job."


def _a_job_is_in_one_state(queue: _Queue) -> Iterable[str]:
    for job_id, places in queue.places.items():
        distinct = list(dict.fromkeys(places))
        if len(distinct) > 1:
            keys = " and ".join(queue.key(state) for state in distinct)
            yield f"{keys} both hold id {job_id}, expected exactly one of them."
        for state in distinct:
            if places.count(state) > 1:
                yield f"{queue.key(state)} holds id {job_id} {places.count(state)} times, expected once."


def _a_listed_job_has_a_hash(queue: _Queue) -> Iterable[str]:
    for job_id, places in queue.places.items():
        if job_id not in queue.jobs:
            yield f"{queue.key(places[0])} holds id {job_id}, expected a hash at {queue.key(job_id)}."


def _a_hash_is_in_a_state(queue: _Queue) -> Iterable[str]:
    for job_id in queue.jobs:
        if job_id not in queue.places:
            yield f"{queue.key(job_id)} is a job hash in no state, expected its id in exactly one structure."


def _a_hash_is_complete(queue: _Queue) -> Iterable[str]:
    for job_id, fields in queue.jobs.items():
        for name in _ALWAYS:
            if name not in fields:
                yield f"{queue.key(job_id)} has no field {name}, expected one in every job hash."
        if "id" in fields:
            yield f"{queue.key(job_id)} has a field id ({fields['id']}), expected none: it hides the real id."
        for name in _NUMBERS:
            if name in fields and _number(fields[name]) is None:
                yield f"{queue.key(job_id)} has {name} {fields[name]!r}, expected a number."
        for name in _JSON:
            if name in fields and not _is_json(fields[name]):
                yield f"{queue.key(job_id)} has {name} {fields[name]!r}, expected JSON."


def _a_parent_is_named_twice_alike(queue: _Queue) -> Iterable[str]:
    for job_id, fields in queue.jobs.items():
        parent_key, parent = fields.get("parentKey"), _json_object(fields.get("parent"))
        if parent_key is None and "parent" not in fields:
            continue
        named = f"{parent.get('queueKey')}:{parent.get('id')}"
        if parent_key != named:
            yield f"{queue.key(job_id)} has parentKey {parent_key}, expected {named} as its parent field says."
        flags = [flag for flag in _FLAGS if flag in parent]
        if len(flags) > 1 or any(parent[flag] is not True for flag in flags):
            found = {flag: parent[flag] for flag in flags}
            yield f"{queue.key(job_id)} has the flags {found} in its parent field, expected at most one, and that true."


def _a_lock_guards_an_active_job(queue: _Queue) -> Iterable[str]:
    active = set(queue.structures["active"])
    for (job_id, kind), value in queue.subkeys.items():
        if kind != "lock":
            continue
        if job_id not in active:
            place = queue.places.get(job_id, ["no state"])[0]
            yield f"{queue.key(job_id + ':lock')} guards job {job_id} in {place}, expected it in active."
        if not value.has_ttl:
            yield f"{queue.key(job_id + ':lock')} never expires, expected a time to live."


def _stalled_is_part_of_active(queue: _Queue) -> Iterable[str]:
    active = set(queue.structures["active"])
    # Removing an unlocked active job leaves its id here until the next stalled pass throws the whole set away; until
    # then another job may get the id, but none that has been started.
    for job_id in sorted(queue.value("stalled", set())):
        if job_id not in active and _number(queue.jobs.get(job_id, {}).get("ats")):
            yield f"{queue.key('stalled')} holds id {job_id}, expected only ids of {queue.key('active')}."


def _a_delayed_score_is_a_due_time(queue: _Queue) -> Iterable[str]:
    for job_id, score in queue.scores.get("delayed", {}).items():
        due = int(score // _SLOTS_PER_MS)
        where = f"{queue.key('delayed')} has score {score:.0f} for id {job_id}"
        if not score.is_integer() or due <= 0:
            yield f"{where}, expected a whole number above {_SLOTS_PER_MS}."
            continue
        fields = queue.jobs.get(job_id, {})
        timestamp, delay = _number(fields.get("timestamp")), _number(fields.get("delay"))
        if timestamp is None or delay is None:
            continue
        # A changed delay counts from the moment of the change, so the due time may be later than timestamp + delay,
        # and never earlier. A caller's own timestamp can lie anywhere, but binds the due time of a job nobody moved.
        # So can that of an add that gave way to this job and put it off (`reschedule`).
        own_timestamp = "timestamp" in _json_object(fields.get("opts")) or "deid" in fields
        if own_timestamp:
            if due < timestamp - _CLOCK_SLACK_MS and due < queue.now_ms - 10 * 365 * 86_400_000:
                yield f"{where}, which is due at {due} ms, expected about {timestamp + delay:.0f} ms."
        elif not int(timestamp + delay) <= due <= queue.now_ms + delay + _CLOCK_SLACK_MS:
            yield f"{where}, which is due at {due} ms, expected {timestamp + delay:.0f} ms, or later by a new delay."


def _a_priority_score_tells_the_priority(queue: _Queue) -> Iterable[str]:
    counter = _number(queue.value("pc", "0")) or 0
    for job_id, score in queue.scores.get("prioritized", {}).items():
        where = f"{queue.key('prioritized')} has score {score:.0f} for id {job_id}"
        priority = int(_number(queue.jobs.get(job_id, {}).get("priority")) or 0)
        high, low = divmod(int(score), _PRIORITY_STEP)
        if priority == 0:
            yield f"{where} whose priority is 0, expected it in {queue.key('wait')}."
        elif high != priority or not score.is_integer():
            yield f"{where}, which means priority {high}, expected {priority} as its hash says."
        elif low > counter:
            yield f"{where}, whose place is {low}, expected at most {counter:.0f} as {queue.key('pc')} counts."


def _a_waiting_job_has_no_priority(queue: _Queue) -> Iterable[str]:
    # Stall recovery, bulk retry and bulk promotion put jobs here whatever their priority, and so does the removal of a
    # parent's last child. All but that one leave a trace in the hash, unless a delay had been changed to none; both are
    # known from the events.
    events = queue.value("events", [])
    excused = {entry.get("jobId") for entry in events if "waiting-children" in (entry.get("event"), entry.get("prev"))}
    delays = Counter(entry.get("jobId") for entry in events if entry.get("event") == "delayed")
    excused |= {job_id for job_id, times in delays.items() if times > 1}
    for _, job_id, fields in queue.in_state("wait", "paused"):
        priority = _number(fields.get("priority")) or 0
        moved = any(_number(fields.get(name)) for name in ("stc", "atm", "ats", "delay"))
        if priority > 0 and not moved and job_id not in excused:
            yield f"{queue.key('wait')} holds id {job_id} of priority {priority:.0f}, expected it in prioritized."


def _a_finished_job_tells_when_and_how(queue: _Queue) -> Iterable[str]:
    for state, job_id, fields in queue.in_state("completed", "failed"):
        score, finished_on = queue.scores[state][job_id], _number(fields.get("finishedOn"))
        if finished_on is None or finished_on != score:
            found = fields.get("finishedOn", "absent")
            yield f"{queue.key(job_id)} has finishedOn {found}, expected {score:.0f}, its score in {state}."
        outcome = "returnvalue" if state == "completed" else "failedReason"
        if outcome not in fields:
            yield f"{queue.key(job_id)} is {state} without {outcome}, expected that field."
        if state == "failed" and "defa" in fields:
            yield f"{queue.key(job_id)} is failed and still has defa, expected it to be removed with the failure."
        for name in ("atm", "ats"):
            if (_number(fields.get(name)) or 0) < 1:
                yield f"{queue.key(job_id)} is {state} with {name} {fields.get(name, 'absent')}, expected at least 1."


def _an_unfinished_job_has_no_end(queue: _Queue) -> Iterable[str]:
    unfinished = (state for state in _STATES if state not in ("completed", "failed"))
    for state, job_id, fields in queue.in_state(*unfinished):
        if "finishedOn" in fields:
            yield f"{queue.key(job_id)} is in {state} with finishedOn {fields['finishedOn']}, expected no such field."


def _an_active_job_was_started(queue: _Queue) -> Iterable[str]:
    for _, job_id, fields in queue.in_state("active"):
        if "processedOn" not in fields:
            yield f"{queue.key(job_id)} is active without processedOn, expected the time of its activation."
        if (_number(fields.get("ats")) or 0) < 1:
            yield f"{queue.key(job_id)} is active with ats {fields.get('ats', 'absent')}, expected at least 1."


def _markers_are_the_two_known_ones(queue: _Queue) -> Iterable[str]:
    markers: dict[str, float] = queue.value("marker", {})
    for member in markers.keys() - {"0", "1"}:
        yield f"{queue.key('marker')} holds member {member!r}, expected only '0' and '1'."
    if markers.get("0", 0.0) != 0:
        yield f"{queue.key('marker')} has score {markers['0']} for '0', expected 0."
    if "1" not in markers:
        return
    if not 0 < markers["1"] <= _LAST_MS:
        yield f"{queue.key('marker')} has score {markers['1']:.0f} for '1', expected a time in ms."
        return
    # Every insertion recomputes the delay marker, so it can only be too early, after a removal. The exception is a
    # retry that took its successor along: it leaves the marker alone, so jobs that were started before do not count.
    fresh = [
        score / _SLOTS_PER_MS
        for job_id, score in queue.scores.get("delayed", {}).items()
        if not _number(queue.jobs.get(job_id, {}).get("ats"))
    ]
    if fresh and int(markers["1"]) > int(min(fresh)):
        found = f"{queue.key('marker')} has score {markers['1']:.0f} for '1'"
        yield f"{found}, expected at most {min(fresh):.0f}, when the next delayed job is due."


def _throttles_expire(queue: _Queue) -> Iterable[str]:
    for suffix in ("limiter", "limiter:wake", "stalled-check"):
        if suffix in queue.keys and not queue.keys[suffix].has_ttl:
            yield f"{queue.key(suffix)} never expires, expected a time to live."


def _available_work_wakes_somebody(queue: _Queue) -> Iterable[str]:
    # Jobs put at the front of their priority come without a marker, by the wire.
    front = [job_id for job_id, score in queue.scores.get("prioritized", {}).items() if score % _PRIORITY_STEP == 0]
    prioritized = len(queue.structures["prioritized"]) - len(front)
    available = len(queue.structures["wait"]) + prioritized
    # Under a global concurrency or a rate limit a worker may eat the marker and get nothing; it looks again by itself.
    if not available or "paused" in queue.meta or "concurrency" in queue.meta or "limiter" in queue.keys:
        return
    if "0" in queue.value("marker", {}) or any(_polls(client, queue) for client in queue.clients):
        return
    yield f"{queue.key('marker')} has no member '0' and no worker polls, expected one: {available} jobs could run."


def _polls(client: dict[str, Any], queue: _Queue) -> bool:
    name = f"{queue.prefix}:{base64.b64encode(queue.name.encode()).decode()}"
    named = client.get("name", "")
    # Which key a blocked client waits for is not in the list, so any blocked one gets the benefit of the doubt.
    blocked = client.get("cmd", "").lower() == "bzpopmin" and "b" in client.get("flags", "")
    return named == name or named.startswith(f"{name}:w:") or blocked


def _a_deduplication_owner_exists(queue: _Queue) -> Iterable[str]:
    for dedup_id, value in queue.deduplication.items():
        if value.type == "string" and not value.has_ttl and value.value not in queue.jobs:
            yield f"{queue.key('de:' + dedup_id)} is owned by job {value.value}, expected that job or a time to live."


def _a_waiting_parent_waits_for_something(queue: _Queue) -> Iterable[str]:
    for _, job_id, _ in queue.in_state("waiting-children"):
        if (job_id, "dependencies") not in queue.subkeys and (job_id, "unsuccessful") not in queue.subkeys:
            children = queue.key(f"{job_id}:dependencies")
            yield f"{queue.key('waiting-children')} holds id {job_id}, expected children in {children}."


def _the_counter_is_ahead_of_the_ids(queue: _Queue) -> Iterable[str]:
    numbers = [int(job_id) for job_id in queue.jobs if _CANONICAL_INTEGER.match(job_id)]
    counter = _number(queue.value("id", "0"))
    if numbers and (counter is None or counter < max(numbers)):
        found = queue.value("id", "absent")
        yield f"{queue.key('id')} is {found}, expected at least {max(numbers)}, the highest job id."


def _settings_are_readable(queue: _Queue) -> Iterable[str]:
    meta = queue.meta
    if meta.get("paused", "1") != "1":
        yield f"{queue.key('meta')} has paused {meta['paused']!r}, expected '1' or no such field."
    for name in ("opts.maxLenEvents", "concurrency", "max", "duration"):
        if name in meta and not re.fullmatch(r"-?[0-9]+", meta[name]):
            yield f"{queue.key('meta')} has {name} {meta[name]!r}, expected an integer."
    if "max" in meta and "duration" not in meta:
        yield f"{queue.key('meta')} has max and no duration, expected both: Node fails on activation otherwise."


def _schedulers_have_both_records(queue: _Queue) -> Iterable[str]:
    listed = set(queue.value("repeat", {}))
    for scheduler_id in listed - queue.schedulers.keys():
        record = queue.key("repeat:" + scheduler_id)
        yield f"{queue.key('repeat')} holds id {scheduler_id}, expected a hash at {record}."
    for scheduler_id in queue.schedulers.keys() - listed:
        yield f"{queue.key('repeat:' + scheduler_id)} is a scheduler, expected its id in {queue.key('repeat')}."


def _events_can_be_read_by_everybody(queue: _Queue) -> Iterable[str]:
    # One bad payload stops every Node reader of the stream.
    for entry in queue.value("events", []):
        name = entry.get("event")
        payload = {"completed": "returnvalue", "progress": "data"}.get(name)
        if name is None:
            yield f"{queue.key('events')} has an entry {entry}, expected a field event."
        elif payload is not None and not _is_json(entry.get(payload, "")):
            yield f"{queue.key('events')} has an entry {name} with {payload} {entry.get(payload)!r}, expected JSON."


_RULES: Final[tuple[Callable[[_Queue], Iterable[str]], ...]] = (
    _keys_have_the_right_type,
    _keys_have_a_known_shape,
    _a_job_is_in_one_state,
    _a_listed_job_has_a_hash,
    _a_hash_is_in_a_state,
    _a_hash_is_complete,
    _a_parent_is_named_twice_alike,
    _a_lock_guards_an_active_job,
    _stalled_is_part_of_active,
    _a_delayed_score_is_a_due_time,
    _a_priority_score_tells_the_priority,
    _a_waiting_job_has_no_priority,
    _a_finished_job_tells_when_and_how,
    _an_unfinished_job_has_no_end,
    _an_active_job_was_started,
    _markers_are_the_two_known_ones,
    _throttles_expire,
    _available_work_wakes_somebody,
    _a_deduplication_owner_exists,
    _a_waiting_parent_waits_for_something,
    _the_counter_is_ahead_of_the_ids,
    _settings_are_readable,
    _schedulers_have_both_records,
    _events_can_be_read_by_everybody,
)


# -- Values ------------------------------------------------------------------------------------------------------------


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
