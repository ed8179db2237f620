"""A job's options as the engine and Redis take them, or the reason why they can't."""

from __future__ import annotations

import marshal
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from toromq._bridge import to_json
from toromq._guards import is_mapping
from toromq._job_fields import JobFields
from toromq.errors import ConfigurationError, SerializationError
from toromq.options import (
    PRIORITY_LIMIT,
    BackoffOptions,
    JobOptions,
    ParentOptions,
    TelemetryOptions,
    check_job_id,
    deduplication_rule,
    flag,
    jitter_of,
    keep_policy,
    milliseconds,
    moment,
    refuse_unknown,
    text,
    whole,
)

_FAILURE_FLAGS = {
    "fail_parent_on_failure": "fpof",
    "continue_parent_on_failure": "cpof",
    "ignore_dependency_on_failure": "idof",
    "remove_dependency_on_failure": "rdof",
}
_GONE = {
    "debounce": "deduplication=Deduplication.debounce(id, ttl)",
    "repeat": "a job scheduler, which makes jobs again and again",
}
# The names under which the others are stored are BullMQ's own.
_SHORT: Final = {"kl": "keep_logs", "de": "deduplication", **{short: name for name, short in _FAILURE_FLAGS.items()}}
_TRACE: Final = {"tm": "metadata", "omc": "omit_context"}
_RELATIONS = frozenset((*_FAILURE_FLAGS, "deduplication", "parent", "telemetry"))
# What differs from job to job, or means another thing at another time or with other data.
_OF_ONE_JOB = frozenset(("deduplication", "job_id", "run_at", "size_limit", "telemetry", "timestamp"))
# What became of options that jobs have in common, by their content: JSON, delay, priority, lifo and parent, which the
# children of one job share. A program adds its jobs with few sets of options again and again; at most this many are
# remembered, and none that is longer.
_known: dict[bytes, tuple[bytes, int, int, bool, tuple[str, bytes] | None]] = {}
_MOST_KNOWN = 256
_LONGEST_KNOWN = 1024
_NO_OPTIONS = to_json({"attempts": 0})


def packed(
    name: str, data: bytes, given: Mapping[str, Any], defaults: Mapping[str, Any], place: str = ""
) -> tuple[Any, ...]:
    """A job as the engine takes it, from its name, its data as JSON text and its options. `place` begins its errors."""
    # Most jobs have no options at all.
    if not given and not defaults and type(name) is str and name.isascii():
        return ("", name, data, _NO_OPTIONS, time.time_ns() // 1_000_000, 0, 0, False, None, None)
    try:
        return _packed(name, data, given, defaults)
    except (ConfigurationError, SerializationError, TypeError) as error:
        if not place:
            raise
        raise type(error)(f"{place}{error}") from None


def _packed(name: str, data: bytes, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[Any, ...]:
    name = text("name", name)
    if not given and not defaults:
        return ("", name, data, _NO_OPTIONS, time.time_ns() // 1_000_000, 0, 0, False, None, None)
    options = _merged(given, defaults) if defaults else dict(given)
    content = _content(options) if _OF_ONE_JOB.isdisjoint(options) else None
    if content is not None and (known := _known.get(content)) is not None:
        opts, delay, priority, lifo, parent = known
        return ("", name, data, opts, time.time_ns() // 1_000_000, delay, priority, lifo, None, parent)
    if not options.keys() <= JobOptions.__annotations__.keys():
        for gone, instead in _GONE.items():
            if gone in options:
                raise TypeError(f"a job has no option {gone!r}; use {instead}")
        refuse_unknown(options, JobOptions.__annotations__, "a job")
    options = {key: value for key, value in options.items() if value is not None}
    stored: dict[str, Any] = {}
    timestamp = moment("timestamp", options["timestamp"]) if "timestamp" in options else time.time_ns() // 1_000_000
    if "timestamp" in options:
        stored["timestamp"] = timestamp
    delay = 0
    if "run_at" in options and "delay" in options:
        raise ConfigurationError("delay and run_at: give one of them")
    if "run_at" in options:
        delay = stored["delay"] = max(0, moment("run_at", options["run_at"]) - timestamp)
    elif "delay" in options:
        delay = stored["delay"] = milliseconds("delay", options["delay"])
    priority = whole("priority", options.get("priority", 0), 0, PRIORITY_LIMIT)
    if "priority" in options:
        stored["priority"] = priority
    lifo = flag("lifo", options.get("lifo", False))
    if "lifo" in options:
        stored["lifo"] = lifo
    stored["attempts"] = whole("attempts", options.get("attempts", 0), 0)
    if "backoff" in options:
        stored["backoff"] = _stored_backoff(options["backoff"])
    own_id = ""
    if "job_id" in options and options["job_id"] != "":
        own_id = stored["jobId"] = check_job_id(options["job_id"])
    for option, short in (("remove_on_complete", "removeOnComplete"), ("remove_on_fail", "removeOnFail")):
        if option in options:
            stored[short] = keep_policy(option, options[option])
    for option, short in (("keep_logs", "kl"), ("size_limit", "sizeLimit"), ("stack_trace_limit", "stackTraceLimit")):
        if option in options:
            stored[short] = whole(option, options[option], 0)
    if "sizeLimit" in stored and len(data) > stored["sizeLimit"]:
        raise ConfigurationError(f"data: {len(data)} bytes of JSON, but size_limit is {stored['sizeLimit']}")
    rule = parent = None
    if not _RELATIONS.isdisjoint(options):
        rule, parent = _stored_relations(options, stored)
    opts = to_json(stored, "options")
    if content is not None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[content] = (opts, delay, priority, lifo, parent)
    return (own_id, name, data, opts, timestamp, delay, priority, lifo, rule, parent)


def _merged(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    # A job's own moment wins over the queue's delay, and the other way round.
    moments = ("delay", "run_at") if given.get("delay") is not None or given.get("run_at") is not None else ()
    return {**{key: value for key, value in defaults.items() if key not in moments}, **given}


def _content(options: dict[str, Any]) -> bytes | None:
    """Bytes that are the same only for the same options; None where there are none, or too many to be worth it."""
    try:
        # Cheaper than checking the options anew, and unlike comparing them it tells True from 1. It takes nothing but
        # plain values; the version is one that does not look at what else refers to them.
        content = marshal.dumps(options, 2)
    except ValueError:
        return None
    return content if len(content) <= _LONGEST_KNOWN else None


def _stored_relations(options: Mapping[str, Any], stored: dict[str, Any]) -> tuple[Any, Any]:
    """What few jobs have: what the engine must know of it, the rest only stored."""
    rule = _stored_deduplication(options["deduplication"], stored) if "deduplication" in options else None
    policy = ""
    for option, short in _FAILURE_FLAGS.items():
        if option in options:
            stored[short] = flag(option, options[option])
            if stored[short] and policy:
                raise ConfigurationError(f"{option}: got True; allowed is one of {', '.join(_FAILURE_FLAGS)}")
            policy = short if stored[short] else policy
    parent = None
    if "parent" in options:
        if rule is not None:
            raise ConfigurationError("deduplication and parent: give one of them")
        parent = _stored_parent(options["parent"], policy, stored)
    if "telemetry" in options:
        _store_telemetry(options["telemetry"], stored)
    return rule, parent


def _stored_deduplication(given: Any, stored: dict[str, Any]) -> tuple[Any, ...]:
    rule = deduplication_rule(given)
    stored["de"] = {"keepLastIfActive" if name == "keep_last_if_active" else name: rule[name] for name in rule}  # type: ignore[literal-required]
    flags = (rule.get(name, False) for name in ("extend", "replace", "reschedule", "keep_last_if_active"))
    return (rule["id"], rule.get("ttl", 0), *flags)


def _stored_parent(given: Any, policy: str, stored: dict[str, Any]) -> tuple[str, bytes]:
    if isinstance(given, JobFields):
        given = {"id": given.id, "queue": f"{given._queue.prefix}:{given._queue.name}"}
    if not is_mapping(given):
        raise ConfigurationError(f"parent: got {given!r}; allowed is a job, or a dict with its id and queue")
    refuse_unknown(given, ParentOptions.__annotations__, "parent")
    parent = {name: text(f"parent.{name}", given.get(name, "")) for name in ("id", "queue")}
    if not parent["id"]:
        raise ConfigurationError("parent.id: missing or empty; allowed is the id of a job")
    prefix, colon, name = parent["queue"].rpartition(":")
    if not (prefix and colon and name):
        raise ConfigurationError(f"parent.queue: got {parent['queue']!r}; allowed is <prefix>:<queue>, as 'bull:mail'")
    stored["parent"] = parent
    link = {"id": parent["id"], "queueKey": parent["queue"], **({policy: True} if policy else {})}
    return f"{parent['queue']}:{parent['id']}", to_json(link, "parent")


def _store_telemetry(given: Any, stored: dict[str, Any]) -> None:
    if not is_mapping(given):
        raise ConfigurationError(f"telemetry: got {given!r}; allowed is a dict with metadata and omit_context")
    refuse_unknown(given, TelemetryOptions.__annotations__, "telemetry")
    if given.get("metadata") is not None:
        stored["tm"] = text("telemetry.metadata", given["metadata"])
    if given.get("omit_context") is not None:
        stored["omc"] = flag("telemetry.omit_context", given["omit_context"])


def _stored_backoff(given: Any) -> dict[str, Any]:
    if not is_mapping(given):
        if not isinstance(given, int | float | timedelta) or isinstance(given, bool):
            raise ConfigurationError(
                f"backoff: got {given!r}; allowed is a timedelta or milliseconds, or Backoff.fixed(...), "
                "Backoff.exponential(...) or Backoff.custom(...)"
            )
        return {"type": "fixed", "delay": milliseconds("backoff", given)}
    refuse_unknown(given, BackoffOptions.__annotations__, "backoff")
    if "type" not in given:
        raise ConfigurationError("backoff.type: missing; use Backoff.fixed(...) or Backoff.exponential(...)")
    stored: dict[str, Any] = dict(given)
    text("backoff.type", given["type"])
    if "jitter" in given:
        jitter_of("backoff.jitter", given["jitter"])
    if "delay" in given:
        stored["delay"] = milliseconds("backoff.delay", given["delay"])
    return stored


def given_options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `job.opts` by the names that `add` has for them, without those that no job is given."""
    given: dict[str, Any] = {}
    for name, value in stored.items():
        if name in _TRACE:
            given.setdefault("telemetry", {})[_TRACE[name]] = value
            continue
        option = _SHORT.get(name) or _snake(name)
        if option == "deduplication" and is_mapping(value):
            given[option] = {_snake(key): item for key, item in value.items()}
        elif option in JobOptions.__annotations__:
            given[option] = value
    return given


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
