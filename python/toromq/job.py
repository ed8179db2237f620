"""A job."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from toromq._bridge import from_json, port, to_json
from toromq.errors import SerializationError, ToroError, UnrecoverableError

if TYPE_CHECKING:
    from toromq._bridge import NativeByHand
    from toromq.queue import Queue

DataT = TypeVar("DataT")
ResultT = TypeVar("ResultT")


class Job(Generic[DataT, ResultT]):
    """One unit of work, as it was stored when it was read. Data is decoded when it is first looked at."""

    def __init__(self, queue: Queue[Any, Any], stored: tuple[str, str, int, int, dict[str, bytes]]) -> None:
        """Made by queues and workers."""
        self._queue = queue
        self.id, self.token, self.attempts_started, self.attempts_made, self._fields = stored
        self._decoded: dict[str, Any] = {}
        self._hand: NativeByHand | None = None

    def __repr__(self) -> str:
        """Without data, which may be secret."""
        return f"<Job {self.id} {self.name!r} of {self.queue_name!r}>"

    def _text(self, field: str) -> str | None:
        value = self._fields.get(field)
        return None if value is None else value.decode("utf-8", "replace")

    def _integer(self, field: str) -> int:
        try:
            return int(float(self._fields.get(field, b"0")))
        except (ValueError, OverflowError):
            return 0

    def _json(self, field: str, default: Any) -> Any:
        if field not in self._decoded:
            value = self._fields.get(field)
            try:
                self._decoded[field] = default if value is None else from_json(value)
            except SerializationError as error:
                raise SerializationError(f"job {self.id}: the stored {field} is no JSON: {error}") from error
        return self._decoded[field]

    @property
    def queue_name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def name(self) -> str:
        """The job's name."""
        return self._text("name") or ""

    @property
    def data(self) -> DataT:
        """What the job was added with."""
        return cast(DataT, self._json("data", {}))

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
        """What its processor returned."""
        return cast("ResultT | None", self._json("returnvalue", None))

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
    def parent_key(self) -> str | None:
        """The full key of its parent."""
        return self._text("parentKey")

    @property
    def parent(self) -> dict[str, Any] | None:
        """Its parent: id and queueKey."""
        return cast("dict[str, Any] | None", self._json("parent", None))

    async def get_state(self) -> str:
        """The state it is in now."""
        return await self._queue.get_job_state(self.id)

    async def update_data(self, data: DataT) -> None:
        """Replace its data.

        Raises:
            JobNotFoundError: it was removed.
        """
        text = to_json(data, "data")
        await port().call(self._queue._native().update_data, self.id, text)
        self._fields["data"] = text
        self._decoded.pop("data", None)

    async def update_progress(self, progress: Any) -> None:
        """Store and publish its progress: anything that is JSON.

        Raises:
            JobNotFoundError: it was removed.
        """
        text = to_json(progress, "progress")
        await port().call(self._queue._native().update_progress, self.id, text)
        self._fields["progress"] = text
        self._decoded.pop("progress", None)
        self._queue._progressed(self, progress)

    async def log(self, row: str) -> int:
        """Append a line to its log; gives how many there are.

        Raises:
            JobNotFoundError: it was removed.
        """
        keep = self.opts.get("kl") or 0
        return cast(int, await port().call(self._queue._native().add_log, self.id, str(row), int(keep)))

    async def move_to_completed(self, returnvalue: ResultT, token: str, fetch_next: bool = True) -> Any:
        """Finish a job that was fetched by hand; gives the next one, or None, unless `fetch_next` is False.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
        """
        return await self._finish(token, fetch_next, to_json(returnvalue, "returnvalue"), None, None, False)

    async def move_to_failed(self, error: BaseException, token: str, fetch_next: bool = True) -> Any:
        """Fail a job that was fetched by hand; it is tried again if it has attempts left.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
        """
        stack = "".join(traceback.format_exception(error))
        return await self._finish(token, fetch_next, None, str(error), stack, isinstance(error, UnrecoverableError))

    async def _finish(self, token: str, fetch_next: bool, *outcome: Any) -> Any:
        hand = self._hand
        if hand is None:
            raise ToroError(f"job {self.id} was not fetched by hand; get it with worker.get_next_job(token)")
        await port().call(hand.finish, self.id, token, self.attempts_made, list(self._fields.items()), *outcome)
        if not fetch_next:
            return None
        return by_hand(self._queue, hand, await port().call(hand.fetch, token, False))


def by_hand(queue: Queue[Any, Any], hand: NativeByHand, stored: Any) -> Job[Any, Any] | None:
    """A job that its user finishes without a worker's loop."""
    if stored is None:
        return None
    job: Job[Any, Any] = Job(queue, stored)
    job._hand = hand
    return job
