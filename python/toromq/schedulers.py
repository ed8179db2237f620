"""Job schedulers: what is stored of one, and the checks of what is asked for."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from toromq._bridge import from_json, to_json
from toromq._guards import is_mapping
from toromq._packing import given_options, packed
from toromq.errors import ConfigurationError
from toromq.options import flag, milliseconds, moment, some_milliseconds, text, whole

# What is another one for each job, or means nothing where jobs are made one after the other.
_OF_ONE_JOB: Final = {
    "delay": "offset or start_date of the scheduler",
    "run_at": "start_date of the scheduler",
    "job_id": "the scheduler's own id, from which those of its jobs are made",
    "timestamp": "start_date of the scheduler",
    "deduplication": "the scheduler itself, which makes one job for each time",
    "parent": "no parent: a job of a scheduler can't be another's child",
}


@dataclass(frozen=True)
class JobSchedulerTemplate:
    """What the jobs of a scheduler are made from.

    Attributes:
        data: their data, as stored: plain JSON; None where there is none.
        opts: their options, by the names of `JobOptions`.
    """

    data: Any = None
    opts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class JobScheduler:
    """A job scheduler as it is stored. Moments are milliseconds since 1970; None where something is not set.

    Attributes:
        key: its id.
        name: the name of its jobs.
        next: when its newest job is due, or was.
        iteration_count: how many jobs it has made; None for one that was not made by a job scheduler.
        limit: how many it makes.
        start_date: it makes none before.
        end_date: it makes none after.
        tz: the time zone of its pattern.
        pattern: its cron pattern.
        every: its interval in milliseconds.
        offset: the phase of its interval in milliseconds.
        template: what its jobs are made from; None without data and options.
    """

    key: str
    name: str | None = None
    next: int | None = None
    iteration_count: int | None = None
    limit: int | None = None
    start_date: int | None = None
    end_date: int | None = None
    tz: str | None = None
    pattern: str | None = None
    every: int | None = None
    offset: int | None = None
    template: JobSchedulerTemplate | None = None

    @classmethod
    def _of(cls, key: str, due: int, record: Mapping[str, bytes]) -> JobScheduler:
        texts = {name: value.decode("utf-8", "replace") for name, value in record.items()}

        def number(name: str) -> int | None:
            try:
                return int(float(texts[name])) if name in texts else None
            except (ValueError, OverflowError):
                return None

        template = None
        if "data" in record or "opts" in record:
            opts = _json(record.get("opts", b"{}"))
            template = JobSchedulerTemplate(_json(record.get("data", b"null")), given_options(opts or {}))
        return cls(
            key=key,
            name=texts.get("name"),
            next=due,
            iteration_count=number("ic"),
            limit=number("limit"),
            start_date=number("startDate"),
            end_date=number("endDate"),
            tz=texts.get("tz"),
            pattern=texts.get("pattern"),
            every=number("every"),
            offset=number("offset"),
            template=template,
        )


def _json(stored: bytes) -> Any:
    try:
        return from_json(stored)
    except ValueError:
        return None


def scheduler_id_of(given: Any) -> str:
    """The id of a job scheduler."""
    if not text("id", given):
        raise ConfigurationError("id: got ''; allowed is a text that is not empty")
    return str(given)


def template_of(name: str, data: bytes, given: Any, defaults: Mapping[str, Any]) -> tuple[str, bytes, bytes, int, bool]:
    """Name, data and options of the jobs, as the engine takes them."""
    if given is None:
        given = {}
    if not is_mapping(given):
        raise ConfigurationError(f"opts: got {given!r}; allowed is a dict with options of a job")
    for option, instead in _OF_ONE_JOB.items():
        if given.get(option) is not None:
            raise ConfigurationError(f"opts.{option}: not allowed for a job scheduler; use {instead}")
    usual = {option: value for option, value in defaults.items() if option not in _OF_ONE_JOB}
    options = {**usual, **given}
    try:
        _, name, data, opts, _, _, priority, lifo, *_ = packed(name, data, options, {}, "opts.")
    except ConfigurationError as error:
        # What is no option is not in them.
        words = str(error)
        of_job = words.startswith(("opts.name:", "opts.data:"))
        raise ConfigurationError(words.removeprefix("opts.") if of_job else words) from None
    if options.get("attempts") is None:
        stored = from_json(opts)
        del stored["attempts"]
        opts = to_json(stored, "options")
    return name, data, opts, priority, lifo


def when_of(
    every: int | timedelta | None,
    pattern: str | None,
    tz: str | None,
    offset: int | timedelta | None,
    immediately: bool,
    hash_seed: str | None,
    scheduler_id: str,
) -> tuple[Any, ...]:
    """Its interval, or its pattern, as the engine takes it."""
    if (every is None) == (pattern is None):
        raise ConfigurationError("every and pattern: give one of them")
    at_once = flag("immediately", immediately)
    if every is not None:
        for name, value in (("tz", tz), ("hash_seed", hash_seed)):
            if value is not None:
                raise ConfigurationError(f"{name}: got {value!r}; it belongs to a pattern, and every was given")
        # The first job of an interval is due at once anyway.
        phase = 0 if offset is None else milliseconds("offset", offset)
        return (some_milliseconds("every", every), phase or None)
    if offset is not None:
        raise ConfigurationError(f"offset: got {offset!r}; it belongs to every, and a pattern was given")
    cron = text("pattern", pattern)
    seed = None if hash_seed is None else text("hash_seed", hash_seed)
    if seed is None and re.search(r"(^|[\s,])H", cron):
        # Else each evaluation would choose anew.
        seed = scheduler_id
    return (cron, "UTC" if tz is None else text("tz", tz), seed, at_once)


def bounds_of(
    start_date: int | datetime | None, end_date: int | datetime | None, limit: int | None, immediately: bool
) -> tuple[int | None, int | None, int | None]:
    """Start date, end date and limit."""
    start = None if start_date is None else moment("start_date", start_date)
    end = None if end_date is None else moment("end_date", end_date)
    if start is not None and immediately:
        raise ConfigurationError("immediately and start_date: give one of them")
    if end is not None and end <= time.time_ns() // 1_000_000:
        raise ConfigurationError(f"end_date: got {end_date!r}, which has passed; allowed is a moment to come")
    if start is not None and end is not None and start > end:
        raise ConfigurationError(f"end_date: got {end_date!r}, which is before start_date")
    return start, end, None if limit is None else whole("limit", limit, 0)
