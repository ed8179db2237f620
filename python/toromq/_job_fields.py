"""What every job says of itself, in both faces."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from toromq._bridge import NativeFields, NativeWorker, from_json, to_json
from toromq._cancellation import Cancellation
from toromq._guards import is_mapping
from toromq.errors import ConfigurationError, JobCancelledError, SerializationError

if TYPE_CHECKING:
    # Type checkers bring it along; Python itself has no defaults for type variables before 3.13.
    from typing_extensions import TypeVar

    from toromq.telemetry import Span

    DataT = TypeVar("DataT", default=Any)
    ResultT = TypeVar("ResultT", default=Any)
else:
    from typing import TypeVar

    DataT = TypeVar("DataT")
    ResultT = TypeVar("ResultT")

Stored = tuple[str, str, int, int, dict[str, bytes] | NativeFields]
Packed = tuple[Any, ...]
"""A job to add, as the engine takes it."""
Run = tuple[str, str]
"""A run of a job: its id and the token under which it was fetched."""


# Held while all fields of a job are made, so that threads that come at once find the same.
_making = threading.Lock()


def _added_fields(job: Packed) -> dict[str, bytes]:
    """What was written to the hash of a job that was just added."""
    _, name, data, opts, timestamp, delay, priority, _, rule, parent = job
    fields = {
        "name": name.encode(),
        "data": data,
        "opts": opts,
        "timestamp": b"%d" % timestamp,
        "delay": b"%d" % delay,
        "priority": b"%d" % priority,
    }
    if rule is not None:
        fields["deid"] = rule[0].encode()
    if parent is not None:
        fields["parentKey"], fields["parent"] = parent[0].encode(), parent[1]
    return fields


class JobFields(Generic[DataT, ResultT]):
    """One unit of work, as it was stored when it was read. Data is decoded when it is first looked at.

    Attributes:
        id: its id, unique in its queue.
        token: the token under which it is locked for this worker, else empty.
        attempts_started: how often it was begun.
        attempts_made: how often it ended.
        is_duplicate: whether the add that returned it stored nothing, because another job has its id or owns its
            deduplication id. Then `id` is that of the other job, and all else is what was given to the add.
    """

    is_duplicate = False
    # Of a job that was not begun.
    token = ""
    attempts_started = 0
    attempts_made = 0
    # What was read, or what was added. A dict is made of it when that is needed: few look at all of a job.
    _stored: dict[str, bytes] | NativeFields | Packed
    _decoded: dict[str, Any] | None = None
    # The worker that runs it, and where its processor has put it meanwhile.
    _runner: NativeWorker | None = None
    _moved: str | None = None
    # When its processor began, by time.perf_counter.
    _began = math.inf
    # Of the run, where it is traced.
    _span: Span | None = None

    def __init__(self, queue: Any, stored: Stored) -> None:
        """Made by queues and workers."""
        self._queue = queue
        self.id, self.token, self.attempts_started, self.attempts_made, self._stored = stored

    @classmethod
    def _of_added(cls, queue: Any, job_id: str, job: Packed) -> Self:
        """A job as it was just added."""
        made = cls.__new__(cls)
        made._queue, made.id, made._stored = queue, job_id, job
        return made

    def __repr__(self) -> str:
        """Without data, which may be secret."""
        return f"<Job {self.id} {self.name!r} of {self.queue_name!r}>"

    @property
    def _cancellation(self) -> Cancellation:
        # Made when it is first asked for, by whichever thread that is: most jobs have no use for one.
        found = self.__dict__.get("_cancelling")
        return cast(Cancellation, found or self.__dict__.setdefault("_cancelling", Cancellation()))

    @property
    def is_cancelled(self) -> bool:
        """Whether this run was told to end: by `worker.cancel_job`, a forced close, or because its lock was lost.

        A plain function looks at it from time to time, for threads can't be stopped; a coroutine is cancelled as well.
        """
        return self._cancellation.is_set()

    @property
    def cancel_reason(self) -> str | None:
        """Why it was told to end; None while it was not."""
        return self._cancellation.reason

    def raise_if_cancelled(self) -> None:
        """End this run here if it was told to end.

        Raises:
            JobCancelledError: it was; the message is the reason.
        """
        reason = self._cancellation.reason
        if reason is not None:
            raise JobCancelledError(reason)

    @property
    def _fields(self) -> dict[str, bytes]:
        """All that is stored of it."""
        stored = self._stored
        if isinstance(stored, dict):
            return stored
        with _making:
            stored = self._stored
            if not isinstance(stored, dict):
                stored = self._stored = _added_fields(stored) if isinstance(stored, tuple) else stored.all()
        return stored

    def _field(self, name: str) -> bytes | None:
        stored = self._stored
        return (self._fields if isinstance(stored, tuple) else stored).get(name)

    def _known(self) -> dict[str, Any]:
        """What was decoded of it already."""
        known = self._decoded
        if known is None:
            known = self._decoded = {}
        return known

    def _text(self, field: str) -> str | None:
        value = self._field(field)
        return None if value is None else value.decode("utf-8", "replace")

    def _integer(self, field: str) -> int:
        return _number(self._field(field) or b"0")

    def _json(self, field: str, default: Any) -> Any:
        known = self._known()
        if field not in known:
            value = self._field(field)
            try:
                known[field] = default if value is None else from_json(value)
            except SerializationError as error:
                raise SerializationError(f"job {self.id}: the stored {field} is no JSON: {error}") from error
        return known[field]

    @property
    def queue_name(self) -> str:
        """The queue's name."""
        return str(self._queue.name)

    @property
    def prefix(self) -> str:
        """What the queue's keys begin with."""
        return str(self._queue.prefix)

    @property
    def queue_qualified_name(self) -> str:
        """The queue's prefix and name."""
        return str(self._queue.qualified_name)

    @property
    def name(self) -> str:
        """The job's name."""
        return self._text("name") or ""

    @property
    def data(self) -> DataT:
        """What the job was added with.

        Raises:
            SerializationError: what is stored is no JSON, or not what the queue's `data_type` says.
        """
        known = self._known()
        if "data" not in known:
            stored = self._field("data")
            place = f"job {self.id}: the stored data"
            known["data"] = self._queue._data_type.decode(b"{}" if stored is None else stored, place)
        return cast(DataT, known["data"])

    @property
    def opts(self) -> dict[str, Any]:
        """The stored options, by the names they are stored under."""
        return cast("dict[str, Any]", self._json("opts", {"attempts": 0}))

    @property
    def timestamp(self) -> int:
        """When it was added, in milliseconds since the epoch."""
        return self._integer("timestamp")

    @property
    def delay(self) -> int:
        """Milliseconds between its timestamp and its first run."""
        return self._integer("delay")

    @property
    def priority(self) -> int:
        """0 for a standard job; lower runs first."""
        return self._integer("priority")

    @property
    def progress(self) -> Any:
        """What its processor last reported; 0 before."""
        return self._json("progress", 0)

    @property
    def returnvalue(self) -> ResultT | None:
        """What its processor returned; None before.

        Raises:
            SerializationError: what is stored is no JSON, or not what the queue's `result_type` says.
        """
        known = self._known()
        if "returnvalue" not in known:
            stored = self._field("returnvalue")
            place = f"job {self.id}: the stored returnvalue"
            nothing = stored is None or stored == b"null"
            known["returnvalue"] = None if nothing else self._queue._result_type.decode(stored, place)
        return cast("ResultT | None", known["returnvalue"])

    @property
    def failed_reason(self) -> str | None:
        """Why its last attempt failed."""
        return self._text("failedReason") or None

    @property
    def stacktrace(self) -> list[str]:
        """A traceback for each failed attempt."""
        return cast("list[str]", self._json("stacktrace", []))

    @property
    def stalled_counter(self) -> int:
        """How often its worker died."""
        return self._integer("stc")

    @property
    def processed_on(self) -> int | None:
        """When its last run began, in milliseconds since the epoch."""
        return self._integer("processedOn") or None

    @property
    def finished_on(self) -> int | None:
        """When it completed or failed, in milliseconds since the epoch."""
        return self._integer("finishedOn") or None

    @property
    def processed_by(self) -> str | None:
        """The name of the worker that ran it."""
        return self._text("pb")

    @property
    def deferred_failure(self) -> str | None:
        """Why the next worker will fail it without running it."""
        return self._text("defa")

    @property
    def deduplication_id(self) -> str | None:
        """The deduplication id it was added with."""
        return self._text("deid")

    @property
    def parent_key(self) -> str | None:
        """The full key of its parent."""
        return self._text("parentKey")

    @property
    def parent(self) -> dict[str, Any] | None:
        """Its parent: id and queueKey."""
        return cast("dict[str, Any] | None", self._json("parent", None))

    @property
    def repeat_job_key(self) -> str | None:
        """The id of the job scheduler that made it."""
        return self._text("rjk")

    def as_json(self) -> dict[str, Any]:
        """The job as it is stored, with its id: what `Job.from_json` takes. Values are texts, as in Redis."""
        stored = {name: value.decode("utf-8", "surrogateescape") for name, value in self._fields.items()}
        return {"id": self.id, **stored}

    def to_json(self) -> dict[str, Any]:
        """The job with everything decoded, for logs and answers of a web server; unset fields are left out."""
        described = {
            "id": self.id,
            "name": self.name,
            "data": self.data,
            "opts": self.opts,
            "queue_qualified_name": self.queue_qualified_name,
            "timestamp": self.timestamp,
            "delay": self.delay,
            "priority": self.priority,
            "progress": self.progress,
            "attempts_started": self.attempts_started,
            "attempts_made": self.attempts_made,
            "stalled_counter": self.stalled_counter,
            "stacktrace": self.stacktrace,
            "returnvalue": self.returnvalue,
        }
        for name in (
            "failed_reason", "processed_on", "finished_on", "processed_by", "deferred_failure", "repeat_job_key",
            "parent_key", "parent",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None:
                described[name] = value
        return described

    def _set(self, **fields: bytes | None) -> None:
        """Take over what was just written to its hash; None for a field that was removed."""
        stored, known = self._fields, self._decoded
        for name, value in fields.items():
            if known is not None:
                known.pop(name, None)
            if value is None:
                stored.pop(name, None)
            else:
                stored[name] = value

    def _ended(self, finished_on: int | None, **outcome: bytes) -> None:
        """Take over what was just written of the end of an attempt; None where the job goes on."""
        self.attempts_made += 1
        self._set(finishedOn=None if finished_on is None else b"%d" % finished_on, **outcome)


def stored_of(given: Any, job_id: str | None) -> Stored:
    """What a job is made from, of its hash as a dict; its id stands beside, or in the dict."""
    if not is_mapping(given):
        raise ConfigurationError(f"stored: got {given!r}; allowed is what job.as_json() gives")
    fields: dict[str, bytes] = {}
    for name, value in given.items():
        if name == "id" or value is None:
            continue
        if not isinstance(value, str):
            # Other clients give decoded what is stored as JSON, and numbers as numbers.
            is_number = isinstance(value, int) and not isinstance(value, bool)
            value = str(value) if is_number else to_json(value, name).decode()
        fields[name] = value.encode("utf-8", "surrogateescape")
    found = given.get("id") if job_id is None else job_id
    if not isinstance(found, str):
        raise ConfigurationError(f"job_id: got {found!r}; give the job's id, as a text, or with the stored fields")
    made = fields.get("attemptsMade", fields.get("atm", b"0"))
    return found, "", _number(fields.get("ats", b"0")), _number(made), fields


def _number(stored: bytes) -> int:
    try:
        return int(float(stored))
    except (ValueError, OverflowError):
        return 0


def children_of(outcome: str, found: list[bytes]) -> Any:
    """Children as one page of them was read: keys alone, or each followed by its result or reason."""
    if outcome in ("unprocessed", "failed"):
        return list(dict.fromkeys(key.decode() for key in found))
    pairs = zip(found[::2], found[1::2], strict=True)
    if outcome == "processed":
        return {key.decode(): from_json(value) for key, value in pairs}
    return {key.decode(): value.decode("utf-8", "replace") for key, value in pairs}
