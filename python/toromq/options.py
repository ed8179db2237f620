"""What users set, and the checks that refuse a bad value before anything is sent."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Any, Concatenate, Final, Literal, NamedTuple, ParamSpec, Required, TypedDict, TypeVar, get_args

from toromq._guards import is_mapping
from toromq._job_fields import JobFields
from toromq.errors import ConfigurationError

PRIORITY_LIMIT: Final = 2_097_151
_STRUCTURES = frozenset(
    (
        "wait", "paused", "active", "prioritized", "delayed", "waiting-children", "completed", "failed", "stalled",
        "stalled-check", "limiter", "meta", "marker", "events", "id", "pc", "repeat", "de", "dn", "metrics", "priority",
        "delay",
    )
)


JobState = Literal["active", "completed", "delayed", "failed", "prioritized", "waiting", "waiting-children", "unknown"]
"""Where a job is; "unknown" for one that is in no state, or does not exist."""
STATES: Final = tuple(state for state in get_args(JobState) if state != "unknown")


class Missing:
    """No data was given, which is not the same as None."""


MISSING: Final = Missing()


class JobLogs(NamedTuple):
    """Lines of a job's log, and how many there are in all."""

    logs: list[str]
    count: int  # type: ignore[assignment]  # tuples have a method of this name; nobody calls it here


class RateLimit(NamedTuple):
    """At most `max` jobs begin within `duration` milliseconds."""

    max: int
    duration: int


class QueueMeta(TypedDict, total=False):
    """Settings of a queue. `paused` is always there; the others where they are set.

    `concurrency` is the global one, `max` and `duration` (milliseconds) the global rate limit, `max_len_events` about
    how many events are kept, `version` and `library` what the queue was last made with.
    """

    paused: bool
    version: str
    library: str
    max_len_events: int
    concurrency: int
    max: int
    duration: int


class DependenciesCount(NamedTuple):
    """How many children a job has, by what became of them."""

    processed: int
    unprocessed: int
    ignored: int
    failed: int


class Dependencies(TypedDict, total=False):
    """A job's children by what became of them, each under its full key.

    `processed` has their results, `ignored` the reasons of those whose failure was ignored, `unprocessed` those that
    are pending, `failed` those that failed and fail their parent. A `next_..._cursor` stands beside each outcome that
    was read page by page; 0 means that there is no more.
    """

    processed: dict[str, Any]
    unprocessed: list[str]
    ignored: dict[str, str]
    failed: list[str]
    next_processed_cursor: int
    next_unprocessed_cursor: int
    next_ignored_cursor: int
    next_failed_cursor: int


class Page(TypedDict, total=False):
    """Which part of the children of one outcome to read: from `cursor` on (0 to begin), about `count` of them."""

    cursor: int
    count: int

class WorkerInfo(NamedTuple):
    """A worker of a queue, as far as the server knows the connection it waits on.

    Attributes:
        name: the queue's name.
        worker_name: the worker's own name, empty for one without.
        rawname: what the connection is called.
        id: the connection's number.
        addr: where it comes from.
        age: seconds since it was made.
        idle: seconds since it last asked for something.
        fields: all that the server tells of it, by the server's names.
    """

    name: str
    worker_name: str
    rawname: str
    id: int
    addr: str
    age: int
    idle: int
    fields: dict[str, str]

    @classmethod
    def of(cls, queue_name: str, worker_name: str, fields: Mapping[str, str]) -> WorkerInfo:
        """From a line of CLIENT LIST."""
        number, age, idle = (int(fields.get(name) or 0) for name in ("id", "age", "idle"))
        return cls(
            queue_name, worker_name, fields.get("name", ""), number, fields.get("addr", ""), age, idle, dict(fields)
        )


class KeepJobs(TypedDict, total=False):
    """How many finished jobs to keep: the newest `count`, none older than `age` seconds; `limit` removals a call."""

    age: int
    count: int
    limit: int


class BackoffOptions(TypedDict, total=False):
    """How long to wait before a retry: `delay` in milliseconds, `jitter` from 0 to 1."""

    type: str
    delay: int
    jitter: float


class DeduplicationOptions(TypedDict, total=False):
    """When a new job gives way to one that has the same deduplication `id`. See Deduplication for the usual ways.

    A job that is added with an `id` owns it until it completes or fails, or for `ttl` if that is given. Of what is
    added meanwhile nothing is stored.

    Options:
        ttl: how long the id is owned, whatever becomes of the job: milliseconds or a timedelta. Ignored with
            `keep_last_if_active`.
        extend: each rejected add starts `ttl` anew.
        replace: a delayed owner is removed, and the new job takes its place; `ttl` starts anew only with `extend`.
        reschedule: a rejected add gives a delayed owner its own delay.
        keep_last_if_active: the last add that was rejected while the owner was active is added when the owner ends.
    """

    id: Required[str]
    ttl: int | timedelta
    extend: bool
    replace: bool
    reschedule: bool
    keep_last_if_active: bool


class ParentOptions(TypedDict):
    """The parent of a job: its id, and its queue as `<prefix>:<queue>`."""

    id: str
    queue: str


class TelemetryOptions(TypedDict, total=False):
    """What is stored for tracing: the `metadata` of a trace, and whether its context is to be left out."""

    metadata: str
    omit_context: bool


class JobOptions(TypedDict, total=False):
    """Options of a job. Durations are milliseconds or a timedelta; moments are aware datetimes.

    Options:
        delay, run_at: how long to wait before the first run, or until when.
        priority: from 1, which runs first, to PRIORITY_LIMIT; a job without priority runs before all of them.
        lifo: run before the jobs without priority that wait already.
        attempts: how often to try in all; 0 and 1 mean once.
        backoff: how long to wait before a retry.
        job_id: an id of your own. As long as a job with it exists, nothing is stored, and the job that is returned says
            so (`is_duplicate`).
        timestamp: when it was added, if not now.
        remove_on_complete, remove_on_fail: which finished jobs to keep; True for none.
        keep_logs: how many lines of its log to keep.
        size_limit: refuse data of more bytes of JSON than this.
        stack_trace_limit: how many tracebacks to keep.
        deduplication: when it gives way to another job. Not together with `parent`.
        parent: whose child it is: a job, or its id and queue. The parent waits for its children, or is about to.
        fail_parent_on_failure: should it fail for good, its parent fails.
        continue_parent_on_failure: should it fail for good, its parent runs at once.
        ignore_dependency_on_failure: should it fail for good, its parent no longer waits for it, and sees its failure.
        remove_dependency_on_failure: should it fail for good, its parent no longer waits for it.
        telemetry: what is stored for tracing.
    """

    delay: int | timedelta
    run_at: datetime
    priority: int
    lifo: bool
    attempts: int
    backoff: int | timedelta | BackoffOptions
    job_id: str
    timestamp: int | datetime
    remove_on_complete: bool | int | KeepJobs
    remove_on_fail: bool | int | KeepJobs
    keep_logs: int
    size_limit: int
    stack_trace_limit: int
    deduplication: DeduplicationOptions
    parent: ParentOptions | JobFields[Any, Any]
    fail_parent_on_failure: bool
    continue_parent_on_failure: bool
    ignore_dependency_on_failure: bool
    remove_dependency_on_failure: bool
    telemetry: TelemetryOptions


class SandboxOptions(NamedTuple):
    """How a worker treats the child processes that its processor runs in.

    Attributes:
        kill_after: how long a job that is cancelled may go on before its child gets SIGTERM, and as long again before
            SIGKILL, in milliseconds or as a timedelta.
        max_jobs: after how many jobs a child is replaced, for processors that leak; None for never.
    """

    kill_after: int | timedelta = 5000
    max_jobs: int | None = None


class Backoff:
    """Ways to wait before a retry.

    Example:
        >>> Backoff.exponential(1000)
        {'type': 'exponential', 'delay': 1000}
    """

    @staticmethod
    def fixed(delay: int | timedelta, *, jitter: float | None = None) -> BackoffOptions:
        """Always the same `delay`."""
        return _backoff("fixed", delay, jitter)

    @staticmethod
    def exponential(delay: int | timedelta, *, jitter: float | None = None) -> BackoffOptions:
        """`delay`, then twice that, then four times, and so on."""
        return _backoff("exponential", delay, jitter)

    @staticmethod
    def custom(type: str, delay: int | timedelta | None = None) -> BackoffOptions:
        """What the worker's own `backoff_strategy` makes of `type`."""
        return _backoff(type, delay, None)


class Deduplication:
    """The usual ways to let a new job give way to one that is there.

    Example:
        >>> Deduplication.throttle("customer-7", 5000)
        {'id': 'customer-7', 'ttl': 5000}
    """

    @staticmethod
    def simple(id: str) -> DeduplicationOptions:
        """Until the first job completes or fails, nothing else with its `id` is added."""
        return deduplication_rule({"id": id})

    @staticmethod
    def throttle(id: str, ttl: int | timedelta, *, extend: bool = False) -> DeduplicationOptions:
        """Nothing else with its `id` is added for `ttl` after the first job, or with `extend` after the last try."""
        return deduplication_rule({"id": id, "ttl": ttl, **({"extend": True} if flag("extend", extend) else {})})

    @staticmethod
    def debounce(id: str, ttl: int | timedelta) -> DeduplicationOptions:
        """Each job takes the place of the one before, as long as that is delayed: give the jobs a `delay` of `ttl`."""
        return deduplication_rule({"id": id, "ttl": ttl, "extend": True, "replace": True})

    @staticmethod
    def keep_last(id: str) -> DeduplicationOptions:
        """One job runs and one follows it: the last of those that were added while it ran."""
        return deduplication_rule({"id": id, "keep_last_if_active": True})


def deduplication_rule(given: Any) -> DeduplicationOptions:
    """When a job gives way, checked."""
    if not is_mapping(given):
        raise ConfigurationError(
            f"deduplication: got {given!r}; allowed is Deduplication.simple(id) or another of its kinds, "
            "or a dict with an id"
        )
    refuse_unknown(given, DeduplicationOptions.__annotations__, "deduplication")
    checked: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if not text("deduplication.id", checked.get("id", "")):
        raise ConfigurationError("deduplication.id: missing or empty; allowed is a text")
    for name in checked:
        if name == "ttl":
            checked[name] = milliseconds("deduplication.ttl", checked[name])
        elif name != "id":
            flag(f"deduplication.{name}", checked[name])
    return checked  # type: ignore[return-value]  # checked just now


def _backoff(kind: str, delay: int | timedelta | None, jitter: float | None) -> BackoffOptions:
    if not isinstance(kind, str):
        raise ConfigurationError(f"type: got {kind!r}; allowed is a text")
    made: BackoffOptions = {"type": kind}
    if delay is not None:
        made["delay"] = milliseconds("backoff", delay)
    if jitter is not None:
        made["jitter"] = jitter_of("jitter", jitter)
    return made


def jitter_of(name: str, value: Any) -> float:
    """How much of a backoff is left to chance."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name}: got {value!r}; allowed is a number from 0 to 1")
    return value


def milliseconds(name: str, value: Any) -> int:
    """A duration as whole milliseconds."""
    if isinstance(value, timedelta):
        value = value / timedelta(milliseconds=1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise ConfigurationError(f"{name}: got {value!r}; allowed is a timedelta or milliseconds, 0 or more")
    return round(value)


def some_milliseconds(name: str, value: Any) -> int:
    """The same where none at all has no meaning."""
    duration = milliseconds(name, value)
    if duration < 1:
        raise ConfigurationError(f"{name}: got {value!r}; allowed is a timedelta or milliseconds, 1 or more")
    return duration


def moment(name: str, value: Any) -> int:
    """A point in time as milliseconds since the epoch."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(
                f"{name}: got the naive datetime {value!r}, which means another moment on every machine; "
                f"give it a time zone, such as datetime(..., tzinfo=UTC)"
            )
        since = round((value - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
        if since >= 0:
            return since
    elif not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < 2**53:
        return round(value)
    raise ConfigurationError(
        f"{name}: got {value!r}; allowed is an aware datetime or milliseconds since 1970, 0 or more"
    )


def whole(name: str, value: Any, low: int, high: int = 2**53) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigurationError(f"{name}: got {value!r}; allowed is a whole number from {low} to {high}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False and nothing else."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}: got {value!r}; allowed is True or False")
    return value


def text(name: str, given: Any) -> str:
    """A text that UTF-8 can hold."""
    if not isinstance(given, str):
        raise ConfigurationError(f"{name}: got {given!r}; allowed is a text")
    value: str = given
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"{name}: got {value!r}; allowed is a text without lone surrogates") from None
    return value


def check_client_name(name: str, value: Any) -> str:
    """What Redis takes as a client's name."""
    if not isinstance(value, str) or not value or not all("!" <= letter <= "~" for letter in value):
        raise ConfigurationError(f"{name}: got {value!r}; allowed is a text without spaces, of ASCII letters and signs")
    return value


_Options = ParamSpec("_Options")
_Self = TypeVar("_Self")


def with_hints(init: Callable[Concatenate[_Self, _Options], None]) -> Callable[Concatenate[_Self, _Options], None]:
    """Let an `__init__` refuse an unknown option with the nearest that exists."""
    known = frozenset(name for name, option in signature(init).parameters.items() if option.kind is option.KEYWORD_ONLY)

    @functools.wraps(init)
    def checked(self: _Self, *arguments: _Options.args, **options: _Options.kwargs) -> None:
        if not options.keys() <= known:
            refuse_unknown(options, known, f"a {type(self).__name__}", getattr(self, "_explained", {}))
        init(self, *arguments, **options)

    return checked  # type: ignore[return-value]  # for mypy, what wraps a method is none


def refuse_unknown(
    given: Mapping[str, Any],
    known: Mapping[str, Any] | frozenset[str],
    what: str,
    explained: Mapping[str, str] | None = None,
) -> None:
    """Raise for an option that does not exist, saying what is meant by its name here, or which is the nearest."""
    for name in given:
        if name not in known:
            if explained and name in explained:
                raise TypeError(f"{what} has no option {name!r}: {explained[name]}")
            import difflib  # Only for those who mistype.

            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; allowed are {', '.join(sorted(known))}"
            raise TypeError(f"{what} has no option {name!r}{hint}")


def check_queue_name(name: Any) -> str:
    """A queue's name, or the reason why it is none."""
    if not isinstance(name, str) or not name or ":" in name:
        raise ConfigurationError(f"queue name: got {name!r}; allowed is a text that is not empty and has no ':'")
    return name


def check_prefix(prefix: Any) -> str:
    """What the keys of a queue begin with."""
    if not text("prefix", prefix):
        raise ConfigurationError("prefix: got ''; allowed is a text that is not empty")
    return str(prefix)


def check_job_id(given: Any) -> str:
    """A job's own id, or the reason why it can't be one."""
    value = text("job_id", given)
    if re.fullmatch(r"-?(0|[1-9]\d*)", value):
        raise ConfigurationError(f"job_id: {value!r} is a number, which could be another job's; put a word before it")
    if value.startswith("0:"):
        raise ConfigurationError(f"job_id: {value!r} begins with '0:', which is taken for a marker; choose another")
    if ":" in value and value.count(":") != 2:
        raise ConfigurationError(f"job_id: {value!r} contains ':'; use another separator, such as '-'")
    if value.partition(":")[0] in _STRUCTURES:
        raise ConfigurationError(f"job_id: {value!r} is the name of a part of the queue; choose another")
    return value


def check_token(given: Any) -> str:
    """What a lock holds: the word of whoever took it."""
    if not isinstance(given, str) or not given or given == "0":
        raise ConfigurationError(f"token: got {given!r}; allowed is a text that is not empty and not '0'")
    return given


def job_id_of(given: Any) -> str:
    """The id of a job that is looked for: any but what names a part of the queue."""
    value = text("job_id", str(given) if isinstance(given, int) and not isinstance(given, bool) else given)
    # Jobs of job schedulers stand beside the schedulers, with their time behind.
    if value.partition(":")[0] in _STRUCTURES and not re.fullmatch(r"repeat:.+:\d+", value, re.DOTALL):
        raise ConfigurationError(f"job_id: {value!r} is the name of a part of the queue, not of a job")
    return value


def keep_policy(name: str, value: Any) -> bool | int | dict[str, Any]:
    """A keep policy, checked."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return whole(name, value, 0)
    if is_mapping(value):
        refuse_unknown(value, KeepJobs.__annotations__, name)
        return {key: whole(f"{name}.{key}", item, 0) for key, item in value.items() if item is not None}
    raise ConfigurationError(f"{name}: got {value!r}; allowed is a bool, a number of jobs, or age, count and limit")


def state_of(option: str, given: Any, allowed: tuple[str, ...]) -> str:
    """One of some states, by the name that scripts know."""
    state = "waiting" if given in ("wait", "paused") and "waiting" in allowed else given
    if state not in allowed:
        import difflib  # Only for those who mistype.

        near = difflib.get_close_matches(str(given), allowed, 1, 0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"{option}: got {given!r}; allowed are {', '.join(allowed)}{hint}")
    return str(state)


def page_of(outcome: str, given: Any) -> tuple[int, int]:
    """Where a page of children begins, and about how many it has."""
    if not is_mapping(given):
        raise ConfigurationError(f"{outcome}: got {given!r}; allowed is a dict with cursor and count")
    refuse_unknown(given, Page.__annotations__, outcome)
    cursor = whole(f"{outcome}.cursor", given.get("cursor", 0), 0, 2**64 - 1)
    return cursor, whole(f"{outcome}.count", given.get("count", 20), 1, 10_000)


def states_of(given: Iterable[str]) -> list[str]:
    """The states asked for, by the names that scripts know."""
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"types: got {given!r}; allowed are {', '.join(STATES)}")
    return [state_of("types", state, STATES) for state in given]
