# Made from ../sandbox_job.py by tools/make_sync.py; change that one.
"""A job inside a child process."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from toromq._bridge import to_json
from toromq._cancellation import Cancellation
from toromq._job_fields import DataT, JobFields, ResultT, Stored
from toromq.options import DependenciesCount, JobState, moment, text


class SandboxJob(JobFields[DataT, ResultT]):
    """The job that a processor in a child process gets: it says what every job says, and asks the worker for the rest.

    An `async def` processor gets a `toromq.SandboxJob`, a plain `def` a `toromq.sync.SandboxJob`, whose methods block.
    They raise what the same method of a Job raises, and ToroError once the job has ended.
    """

    def __init__(self, queue: Any, stored: Stored, calls: Any, cancellation: Cancellation) -> None:
        """Made in the child."""
        super().__init__(queue, stored)
        self._calls = calls
        self._cancelling = cancellation

    def get_state(self) -> JobState:
        """The state it is in now."""
        return cast(JobState, self._calls.call("get_state"))

    def update_data(self, data: DataT) -> None:
        """Replace its data.

        Raises:
            JobNotFoundError: it was removed.
        """
        stored = self._queue._data_type.encode(data, "data")
        self._calls.call("update_data", stored)
        self._set(data=stored)

    def update_progress(self, progress: Any) -> None:
        """Store and publish its progress: anything that is JSON.

        Raises:
            JobNotFoundError: it was removed.
        """
        stored = to_json(progress, "progress")
        self._calls.call("update_progress", stored)
        self._set(progress=stored)

    def log(self, row: str) -> int:
        """Append a line to its log; gives how many there are.

        Raises:
            JobNotFoundError: it was removed.
        """
        return cast(int, self._calls.call("log", to_json(text("row", row))))

    def move_to_delayed(self, timestamp: int | datetime, token: str | None = None) -> None:
        """Let it run at `timestamp`, milliseconds since the epoch or an aware datetime; then raise DelayedError.

        It is moved at once and is then nobody's: what the processor still returns or raises is not stored.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
            JobNotFoundError: it was removed.
        """
        self._calls.call("move_to_delayed", _json(moment("timestamp", timestamp)), _json(token))

    def move_to_wait(self, token: str | None = None) -> None:
        """Put it back to where it waited, as the next of its kind to run; then raise WaitingError.

        In all else as `move_to_delayed`.
        """
        self._calls.call("move_to_wait", _json(token))

    def move_to_waiting_children(
        self, token: str | None = None, *, child: JobFields[Any, Any] | str | None = None
    ) -> bool:
        """Let it wait for its children; True when it does: then raise WaitingChildrenError.

        With `child`, a job or its full key, it waits only if that one has not ended. In all else as `move_to_delayed`.

        Raises:
            FailedChildrenError: a child failed that fails its parent. It fails the job for good if it is not caught.
        """
        key = _json(f"{child.queue_qualified_name}:{child.id}" if isinstance(child, JobFields) else child)
        return cast(bool, self._calls.call("move_to_waiting_children", _json(token), child=key))

    def get_children_values(self) -> dict[str, Any]:
        """The results of its children that completed, each under the child's full key."""
        return cast("dict[str, Any]", self._calls.call("get_children_values"))

    def get_ignored_children_failures(self) -> dict[str, str]:
        """The reasons of its children whose failure was ignored by their options, each under the child's full key."""
        return cast("dict[str, str]", self._calls.call("get_ignored_children_failures"))

    def get_dependencies_count(self) -> DependenciesCount:
        """How many children it has, by what became of them."""
        return DependenciesCount(*self._calls.call("get_dependencies_count"))


def _json(value: int | str | None) -> bytes:
    return to_json(value, "arguments")
