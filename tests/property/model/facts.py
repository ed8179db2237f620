"""What a model of a queue is made of, and what it is held against."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

SLOTS: Final = 4096
STEP: Final = 2**32
ZSETS: Final = ("prioritized", "delayed", "waiting-children", "completed", "failed")
# What the failure of a child means for its parent, the strongest first.
FLAGS: Final = ("fpof", "cpof", "idof", "rdof")
LISTS: Final = ("wait", "active")
STATES: Final = (*LISTS, *ZSETS)
MOST: Final = 2**53 - 1  # what a rate limit by hand counts
STALLED: Final = "job stalled more than allowable limit"


class Refused(NamedTuple):
    """An operation that was refused, with the reply code of the wire."""

    code: int


class Text:
    """A text that is known by its form only: it equals every id that a counter can give."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.isdigit()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<a number>"


class Impossible(Exception):
    """What was seen cannot be, whatever the model knows."""


@dataclass
class Seen:
    """What is there after an operation, and when it ran.

    Attributes:
        before, after: Between which two moments (ms) it ran.
        keys: The keys of the queue by suffix, those of jobs included.
        answer: What the client returned.
    """

    before: int
    after: int
    keys: Mapping[str, Any]
    answer: Any

    def hash(self, job_id: str) -> dict[str, str]:
        """The stored fields of a job."""
        found = self.keys.get(job_id)
        if found is None or found.type != "hash":
            raise Impossible(f"there is no hash of job {job_id}")
        fields: dict[str, str] = found.value
        return fields

    def stamp(self, job_id: str, name: str) -> int:
        """A time that was taken during the operation."""
        value = self.hash(job_id).get(name)
        if value is None or not value.isdigit() or not self.before <= int(value) <= self.after:
            raise Impossible(f"{name} of job {job_id} is {value}, not between {self.before} and {self.after}")
        return int(value)

    def due(self, job_id: str, delay: int) -> int:
        """When a job is due that was delayed during the operation."""
        found = self.keys.get("delayed")
        score = None if found is None else found.value.get(job_id)
        if score is None:
            raise Impossible(f"job {job_id} is not delayed")
        due = int(score // SLOTS)
        if not self.before + delay <= due <= self.after + delay:
            raise Impossible(f"job {job_id} is due at {due}, not {delay} after {self.before} to {self.after}")
        return due


@dataclass
class Job:
    """One job's hash, decoded, and what hangs on it.

    None stands for a field that is not there; where that is a value, an ellipsis does.
    """

    name: str
    data: Any
    opts: dict[str, Any]
    timestamp: int
    delay: int
    priority: int
    ats: int | None = None
    atm: int | None = None
    stc: int | None = None
    progress: Any = ...
    returnvalue: Any = ...
    failedReason: str | None = None
    stacktrace: int | None = None
    processedOn: int | None = None
    finishedOn: int | None = None
    deid: str | None = None
    defa: str | None = None
    parentKey: str | None = None
    parent: dict[str, Any] | None = None
    lock: str | None = None
    logs: list[str] = field(default_factory=list)
    # Its children, by their ids:
    pending: set[str] = field(default_factory=set)
    processed: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unsuccessful: set[str] = field(default_factory=set)

    def fields(self) -> dict[str, Any]:
        """The hash, decoded as ``decoded`` does."""
        may_be_none = ("data", "progress", "returnvalue")
        beside = ("lock", "logs", "pending", "processed", "ignored", "unsuccessful")
        values = {name: value for name, value in vars(self).items() if name not in beside}
        return {name: value for name, value in values.items() if value is not (... if name in may_be_none else None)}

    @property
    def lifo(self) -> bool:
        """Whether its own options want it to be next."""
        return self.opts.get("lifo") is True


def decoded(fields: Mapping[str, str]) -> dict[str, Any]:
    """A stored hash with JSON and numbers taken apart, and of the stack traces only their number."""
    kinds: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("data", "opts", "progress", "returnvalue", "parent"), json.loads),
        **dict.fromkeys(("timestamp", "delay", "priority", "ats", "atm", "stc", "processedOn", "finishedOn"), int),
        "stacktrace": lambda text: len(json.loads(text)),
    }
    return {name: kinds.get(name, str)(value) for name, value in fields.items()}


@dataclass(frozen=True)
class Add:
    """A job that somebody wants to add; ``options`` in our spelling."""

    name: str
    data: Any
    options: dict[str, Any]

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in self.options.items())
        return f"Add({self.name!r}, {self.data!r}{given})"

    @property
    def stored(self) -> dict[str, Any]:
        """Its options as every client stores them."""
        names = {
            "job_id": "jobId",
            "remove_on_complete": "removeOnComplete",
            "remove_on_fail": "removeOnFail",
            "keep_logs": "kl",
            "stack_trace_limit": "stackTraceLimit",
            "deduplication": "de",
            "fail_parent_on_failure": "fpof",
            "continue_parent_on_failure": "cpof",
            "ignore_dependency_on_failure": "idof",
            "remove_dependency_on_failure": "rdof",
        }
        stored = {"attempts": 0, **{names.get(name, name): value for name, value in self.options.items()}}
        if "de" in stored:
            inner = {"keep_last_if_active": "keepLastIfActive"}
            stored["de"] = {inner.get(name, name): value for name, value in stored["de"].items()}
        if isinstance(stored.get("backoff"), int):
            stored["backoff"] = {"type": "fixed", "delay": stored["backoff"]}
        return stored


@dataclass(frozen=True)
class Flow:
    """A job and the jobs below it, which are added together."""

    job: Add
    children: tuple[Flow, ...] = ()
