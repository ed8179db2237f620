"""Where Redis and the model of a queue tell different stories."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.property.model.facts import LISTS, STATES, Job, Seen, decoded
from tests.property.model.queue import Model

# Of these the model knows nothing; the invariants look at them.
_BESIDE = frozenset(("id", "events", "marker", "stalled-check", "limiter:wake"))
_PARTS = ("lock", "logs", "dependencies", "processed", "failed", "unsuccessful")
_JSON_OF_EVENTS = {"completed": "returnvalue", "progress": "data"}


def differences(model: Model, seen: Seen, events: list[dict[str, str]]) -> list[str]:
    """One line for each thing that is in Redis and not in the model, or the other way round."""
    return [
        *_structures(model, seen),
        *_jobs(model, seen),
        *_settings(model, seen),
        *_unexplained(model, seen),
        *_events(model, events),
        *_marker(model, seen),
    ]


def _value(seen: Seen, suffix: str, default: Any) -> Any:
    found = seen.keys.get(suffix)
    return default if found is None else found.value


def _differ(what: str, expected: Any, found: Any) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {expected!r}, found {found!r}"


def _structures(model: Model, seen: Seen) -> Iterable[str]:
    for name in STATES:
        if name in LISTS:
            yield from _differ(name, model.lists[name], _value(seen, name, []))
        else:
            yield from _differ(name, model.zsets[name], _value(seen, name, {}))


def _jobs(model: Model, seen: Seen) -> Iterable[str]:
    for job_id, job in model.jobs.items():
        stored = _value(seen, job_id, None)
        if stored is None:
            yield f"job {job_id}: expected a hash, found none"
            continue
        expected, found = job.fields(), decoded(stored)
        for name in sorted(expected.keys() | found.keys()):
            yield from _differ(f"{name} of job {job_id}", expected.get(name, ...), found.get(name, ...))
        yield from _differ(f"lock of job {job_id}", job.lock, _value(seen, f"{job_id}:lock", None))
        yield from _differ(f"logs of job {job_id}", job.logs, _value(seen, f"{job_id}:logs", []))
        yield from _children(model.base, job_id, job, seen)


def _children(base: str, job_id: str, job: Job, seen: Seen) -> Iterable[str]:
    def keys(ids: Iterable[str]) -> set[str]:
        return {base + child for child in ids}

    processed, ignored = _value(seen, f"{job_id}:processed", {}), _value(seen, f"{job_id}:failed", {})
    results = {base + child: value for child, value in job.processed.items()}
    reasons = {base + child: reason for child, reason in job.ignored.items()}
    unsuccessful = set(_value(seen, f"{job_id}:unsuccessful", {}))
    yield from _differ(f"pending of {job_id}", keys(job.pending), _value(seen, f"{job_id}:dependencies", set()))
    yield from _differ(f"processed of {job_id}", results, {key: json.loads(text) for key, text in processed.items()})
    yield from _differ(f"ignored of {job_id}", reasons, ignored)
    yield from _differ(f"unsuccessful of {job_id}", keys(job.unsuccessful), unsuccessful)


def _settings(model: Model, seen: Seen) -> Iterable[str]:
    meta = {name: text for name, text in _value(seen, "meta", {}).items() if name != "version"}
    rate = {} if model.rate is None else {"max": str(model.rate[0]), "duration": str(model.rate[1])}
    expected = {
        **({"paused": "1"} if model.paused else {}),
        **({} if model.concurrency is None else {"concurrency": str(model.concurrency)}),
        **rate,
    }
    length = meta.pop("opts.maxLenEvents", "10000")
    yield from _differ("meta", expected, meta)
    yield from _differ("opts.maxLenEvents", "10000", length)
    yield from _differ("pc", model.counter, int(_value(seen, "pc", 0)))
    yield from _differ("limiter", model.limiter, int(_value(seen, "limiter", 0)))
    yield from _differ("stalled", model.suspects, _value(seen, "stalled", set()))
    for key, (owner, expires) in model.owners.items():
        found = seen.keys.get(f"de:{key}")
        yield from _differ(f"owner of {key}", (owner, expires), None if found is None else (found.value, found.has_ttl))
    for key, (next_id, job) in model.kept_back.items():
        found = dict(_value(seen, f"dn:{key}", {}))
        for name in ("data", "opts"):
            found[name] = json.loads(found.get(name, "null"))
        kept: dict[str, Any] = {"name": job.name, "data": job.data, "opts": job.stored, "jid": next_id}
        yield from _differ(f"what {key} keeps back", kept, found)


def _unexplained(model: Model, seen: Seen) -> Iterable[str]:
    known = {*STATES, *_BESIDE, "meta", "pc", "limiter", "stalled", *model.jobs}
    known |= {f"{job_id}:{part}" for job_id in model.jobs for part in _PARTS}
    known |= {f"de:{key}" for key in model.owners} | {f"dn:{key}" for key in model.kept_back}
    for suffix in sorted(seen.keys.keys() - known):
        yield f"{suffix}: expected no such key, found {seen.keys[suffix].value!r}"


def _events(model: Model, events: list[dict[str, str]]) -> Iterable[str]:
    # Each job's events come in one order; those of different jobs may come as they like.
    expected, found = _by_job(model.events), _by_job([_decoded_event(event) for event in events])
    for job_id in dict.fromkeys((*expected, *found)):
        yield from _differ(f"events of {job_id}", expected[job_id], found[job_id])


def _by_job(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    sorted_out: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        job_id = event.get("jobId")
        sorted_out["a number" if not isinstance(job_id, str | None) else job_id or "the queue"].append(event)
    return sorted_out


def _decoded_event(event: dict[str, str]) -> dict[str, Any]:
    name = _JSON_OF_EVENTS.get(event["event"])
    return event if name is None else {**event, name: json.loads(event[name])}


def _marker(model: Model, seen: Seen) -> Iterable[str]:
    found = _value(seen, "marker", {})
    needed = {member: score for member, score in model.marks.items() if member not in model.perhaps}
    for member, score in needed.items():
        yield from _differ(f"marker {member}", score, found.get(member))
    for member in found.keys() - model.marks.keys() - model.perhaps:
        yield f"marker {member}: expected none, found {found[member]!r}"
