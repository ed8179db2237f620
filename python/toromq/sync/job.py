# Made from ../job.py by tools/make_sync.py; change that one.
"""A job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, Unpack, cast

from toromq._bridge import NativeByHand, from_json, to_json
from toromq._bridge import blocking_port as port
from toromq._failure import failure_of
from toromq._job_fields import DataT, JobFields, ResultT, children_of, stored_of
from toromq._tracing import NO_SPAN
from toromq.errors import ConfigurationError, LockMismatchError, ToroError
from toromq.options import (
    MISSING,
    PRIORITY_LIMIT,
    Dependencies,
    DependenciesCount,
    JobOptions,
    JobState,
    Page,
    check_token,
    flag,
    milliseconds,
    moment,
    page_of,
    state_of,
    text,
    whole,
)


class Job(JobFields[DataT, ResultT]):
    """One unit of work, as it was stored when it was read. Data is decoded when it is first looked at."""

    # Of a job that was fetched by hand.
    _hand: NativeByHand | None = None
    _worker: Any = None

    @staticmethod
    def create(queue: Any, name: str, data: Any = MISSING, /, **options: Unpack[JobOptions]) -> Job[Any, Any]:
        """The same as `queue.add`."""
        return cast("Job[Any, Any]", queue.add(name, data, **options))

    @staticmethod
    def create_bulk(queue: Any, jobs: Any) -> list[Job[Any, Any]]:
        """The same as `queue.add_bulk`."""
        return cast("list[Job[Any, Any]]", queue.add_bulk(jobs))

    @staticmethod
    def from_id(queue: Any, job_id: str) -> Job[Any, Any] | None:
        """The same as `queue.get_job`."""
        return cast("Job[Any, Any] | None", queue.get_job(job_id))

    @staticmethod
    def add_job_log(queue: Any, job_id: str, row: str, keep_logs: int | None = None) -> int:
        """The same as `queue.add_job_log`."""
        return cast(int, queue.add_job_log(job_id, row, keep_logs))

    @staticmethod
    def from_json(queue: Any, stored: Mapping[str, Any], job_id: str | None = None) -> Job[Any, Any]:
        """A job from what `as_json` gave, or from a job's hash as another client read it. Redis is not asked."""
        return Job(queue, stored_of(stored, job_id))

    def get_state(self) -> JobState:
        """The state it is in now."""
        return cast(JobState, self._queue.get_job_state(self.id))

    def is_waiting(self) -> bool:
        """Whether it waits to run, as a standard job."""
        return self.get_state() == "waiting"

    def is_prioritized(self) -> bool:
        """Whether it waits to run, by its priority."""
        return self.get_state() == "prioritized"

    def is_delayed(self) -> bool:
        """Whether it waits for its time."""
        return self.get_state() == "delayed"

    def is_active(self) -> bool:
        """Whether a worker has it."""
        return self.get_state() == "active"

    def is_waiting_children(self) -> bool:
        """Whether it waits for its children."""
        return self.get_state() == "waiting-children"

    def is_completed(self) -> bool:
        """Whether it completed."""
        return self.get_state() == "completed"

    def is_failed(self) -> bool:
        """Whether it failed for good."""
        return self.get_state() == "failed"

    def update_data(self, data: DataT) -> None:
        """Replace its data.

        Raises:
            JobNotFoundError: it was removed.
        """
        stored = self._queue._data_type.encode(data, "data")
        port().call(self._queue._native().update_data, self.id, stored)
        self._set(data=stored)

    def update_progress(self, progress: Any) -> None:
        """Store and publish its progress: anything that is JSON.

        Raises:
            JobNotFoundError: it was removed.
        """
        stored = to_json(progress, "progress")
        port().call(self._queue._native().update_progress, self.id, stored)
        self._set(progress=stored)
        self._queue._progressed(self, progress)

    def log(self, row: str) -> int:
        """Append a line to its log; gives how many there are.

        Raises:
            JobNotFoundError: it was removed.
        """
        keep = self.opts.get("kl") or 0
        return cast(int, port().call(self._queue._native().add_log, self.id, text("row", row), int(keep)))

    def clear_logs(self, keep_logs: int | None = None) -> None:
        """Delete the lines of its log, but for the newest `keep_logs`."""
        keep = 0 if keep_logs is None else whole("keep_logs", keep_logs, 0)
        port().call(self._queue._native().clear_logs, self.id, keep)

    def remove(self, *, remove_children: bool = True) -> None:
        """Delete it, and unless `remove_children` is False all jobs below it.

        Raises:
            LockMismatchError: a worker runs it, or one of its pending children; nothing was removed.
            SchedulerConflictError: it is the next job of a job scheduler; remove that.
        """
        if not self._queue.remove(self.id, remove_children=remove_children):
            reason = f"job {self.id} can't be removed: a worker runs it, or one of its children; wait, or cancel it"
            raise LockMismatchError(reason, -6, self.id)

    def retry(
        self,
        state: Literal["failed", "completed"] = "failed",
        *,
        reset_attempts_made: bool = False,
        reset_attempts_started: bool = False,
    ) -> None:
        """Queue it again after it failed (or completed), by its priority and its `lifo` option.

        Without a reset, a job that used up its attempts gets exactly one more.

        Raises:
            JobNotFoundError: it was removed.
            JobNotInStateError: it is not in that state.
        """
        made = flag("reset_attempts_made", reset_attempts_made)
        started = flag("reset_attempts_started", reset_attempts_started)
        chosen = state_of("state", state, ("failed", "completed"))
        lifo = self.opts.get("lifo") is True
        port().call(self._queue._native().retry_job, self.id, chosen, lifo, made, started)
        self._set(finishedOn=None, processedOn=None)
        self._set(**{"failedReason" if chosen == "failed" else "returnvalue": None})
        if made:
            self.attempts_made = 0
        if started:
            self.attempts_started = 0

    def promote(self) -> None:
        """Queue it now, although it is delayed.

        Raises:
            JobNotFoundError: it was removed.
            JobNotInStateError: it is not delayed.
        """
        port().call(self._queue._native().promote_job, self.id)
        self._set(delay=b"0")

    def change_delay(self, delay: int | timedelta) -> None:
        """Let it wait for `delay` from now, in milliseconds or a timedelta, instead of what it waits for.

        Raises:
            JobNotFoundError: it was removed.
            JobNotInStateError: it is not delayed.
        """
        wait = milliseconds("delay", delay)
        port().call(self._queue._native().change_delay, self.id, wait)
        self._set(delay=b"%d" % wait)

    def change_priority(self, *, priority: int = 0, lifo: bool = False) -> None:
        """Give it another priority: from 1, which runs first, to 2,097,151; 0 makes it a standard job.

        If it waits, it goes behind the others of that priority, or with `lifo` before them. In other states the new
        priority counts from the next time it waits.

        Raises:
            JobNotFoundError: it was removed.
        """
        value = whole("priority", priority, 0, PRIORITY_LIMIT)
        port().call(self._queue._native().change_priority, self.id, value, flag("lifo", lifo))
        self._set(priority=b"%d" % value)

    def get_children_values(self) -> dict[str, Any]:
        """The results of its children that completed, each under the child's full key."""
        found = port().call(self._queue._native().get_children, self.id, "processed")
        return {key: from_json(value) for key, value in found.items()}

    def get_ignored_children_failures(self) -> dict[str, str]:
        """The reasons of its children whose failure was ignored by their options, each under the child's full key."""
        found = port().call(self._queue._native().get_children, self.id, "failed")
        return {key: value.decode("utf-8", "replace") for key, value in found.items()}

    def get_dependencies_count(self) -> DependenciesCount:
        """How many children it has, by what became of them."""
        return DependenciesCount(*port().call(self._queue._native().get_dependencies_count, self.id))

    def get_dependencies(
        self,
        *,
        processed: Page | None = None,
        unprocessed: Page | None = None,
        ignored: Page | None = None,
        failed: Page | None = None,
    ) -> Dependencies:
        """Its children by what became of them: all of them, or only the pages asked for.

        A page is a dict with `cursor` (0 to begin) and `count` (about how many, default 20); the answer has the cursor
        of the page after it, 0 when there is none. Read page by page, a child may come twice while others come and go.

        Example:
            >>> job.get_dependencies(processed={"cursor": 0, "count": 100})
            {'processed': {'bull:pages:7': 42}, 'next_processed_cursor': 0}
        """
        asked = {"processed": processed, "unprocessed": unprocessed, "ignored": ignored, "failed": failed}
        pages = {outcome: page_of(outcome, page) for outcome, page in asked.items() if page is not None}
        read: dict[str, Any] = {}
        for outcome in pages or asked:
            cursor, count = pages.get(outcome, (0, 1000))
            found: list[bytes] = []
            while True:
                scan = self._queue._native().scan_dependencies
                cursor, part = port().call(scan, self.id, outcome, cursor, count)
                found += part
                if cursor == 0 or pages:
                    break
            read[outcome] = children_of(outcome, found)
            if pages:
                read[f"next_{outcome}_cursor"] = cursor
        return cast(Dependencies, read)

    def remove_child_dependency(self) -> bool:
        """Let its parent no longer wait for it; whether the parent did. The job itself stays, without a parent.

        Raises:
            JobNotFoundError: it was removed.
            ParentNotFoundError: it has no parent, or the parent was removed.
        """
        removed = bool(port().call(self._queue._native().remove_child_dependency, self.id))
        if removed:
            self._set(parentKey=None, parent=None)
        return removed

    def remove_unprocessed_children(self) -> int:
        """Delete its pending children and the pending ones below them; give how many children. Those that run stay, and
        those that have finished.
        """
        return cast(int, port().call(self._queue._native().remove_unprocessed_children, self.id))

    def move_to_delayed(self, timestamp: int | datetime, token: str | None = None) -> None:
        """For its processor: let it run at `timestamp`; then raise DelayedError. No attempt is spent.

        It is moved at once and is then nobody's: what the processor still returns or raises is not stored.

        Args:
            timestamp: an aware datetime, or milliseconds since the epoch.
            token: under which it is locked; default: its own.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
            JobNotFoundError: it was removed.
            RedisConnectionError: Redis stayed away for the connection's `command_timeout`.
        """
        due = moment("timestamp", timestamp)
        if self._move("delayed", due, None, token):
            self._fields["delay"] = b"%d" % max(0, due - time.time_ns() // 1_000_000)

    def move_to_wait(self, token: str | None = None) -> None:
        """For its processor: put it back to where it waited, as the next of its kind to run; then raise WaitingError.

        In all else as `move_to_delayed`.
        """
        self._move("wait", 0, None, token)

    def move_to_waiting_children(
        self, token: str | None = None, *, child: JobFields[Any, Any] | str | None = None
    ) -> bool:
        """For its processor: let it wait for its children; if it does, raise WaitingChildrenError.

        It runs again when all of them have ended, also where only one was asked for. In all else as `move_to_delayed`.

        Args:
            token: under which it is locked; default: its own.
            child: wait only if this one has not ended: a job, or its full key (prefix:queue:id).

        Returns:
            True when it waits; False when there is nothing to wait for, and the processor goes on.

        Raises:
            FailedChildrenError: a child failed that fails its parent. It fails the job for good if it is not caught.
        """
        return self._move("waiting-children", 0, _key_of(child), token)

    def _move(self, state: str, due: int, child: str | None, token: str | None) -> bool:
        mover = self._runner or self._queue._native()
        moved = cast(bool, port().call(mover.move_job, self._run_under(token), (state, due, child)))
        if moved:
            self._moved = state
        return moved

    def extend_lock(self, token: str | None, duration: int | timedelta) -> None:
        """Let its lock live for `duration` (milliseconds or a timedelta) from now on.

        A worker that runs renews the locks of its jobs by itself; this is for jobs that were fetched by hand. With None
        for `token`, its own.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
        """
        life = milliseconds("duration", duration)
        if life == 0:
            raise ConfigurationError(f"duration: got {duration!r}; allowed is a timedelta or milliseconds, 1 or more")
        keeper = self._runner or self._queue._native()
        port().call(keeper.extend_lock, self._run_under(token), life)

    def _run_under(self, token: str | None) -> tuple[str, str, int]:
        if token is None and not self.token:
            raise ConfigurationError(
                f"token: job {self.id} was not fetched by this object; give the token under which it is locked"
            )
        return self.id, check_token(self.token if token is None else token), self.attempts_started

    def remove_deduplication_key(self) -> bool:
        """Let the next job with its deduplication id be added; gives whether this job owned that id."""
        deduplication_id = self.deduplication_id
        if deduplication_id is None:
            return False
        native = self._queue._native()
        return cast(bool, port().call(native.remove_deduplication_key, deduplication_id, self.id))

    def wait_until_finished(self, timeout: int | timedelta | None = None) -> ResultT:
        """Wait until it has ended; gives what it returned. See Queue.wait_until_finished.

        Args:
            timeout: milliseconds or a timedelta; 0 only looks. Default: as long as it takes.

        Raises:
            JobFailedError: it failed, with no attempts left.
            JobNotFoundError: it was removed.
            JobTimeoutError: the time is up; the job goes on.
        """
        return cast(ResultT, self._queue.wait_until_finished(self.id, timeout))

    def move_to_completed(self, returnvalue: ResultT, token: str, fetch_next: bool = True) -> Any:
        """Finish a job that was fetched by hand; gives the next one, or None, unless `fetch_next` is False.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
        """
        stored = self._queue._result_type.encode(returnvalue, "returnvalue")
        return self._finish(token, fetch_next, stored, None, None, False, None)

    def move_to_failed(self, error: BaseException, token: str, fetch_next: bool = True) -> Any:
        """Fail a job that was fetched by hand; it is tried again if it has attempts left.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; nothing was changed.
        """
        delay = None if self._worker is None else self._worker._delay(self, error)
        return self._finish(token, fetch_next, None, *failure_of(error), delay)

    def _finish(self, token: str, fetch_next: bool, *outcome: Any) -> Any:
        hand = self._hand
        if hand is None:
            raise ToroError(f"job {self.id} was not fetched by hand; get it with worker.get_next_job(token)")
        fields = list(self._fields.items())
        tracing = self._worker._tracing
        with NO_SPAN if tracing is None else tracing.finishing(self, *outcome) as span:
            trace = None if span is None or outcome[0] is not None else span.context()
            run = self._run_under(token)
            finished_on = port().call(hand.finish, run, self.attempts_made, fields, *outcome, trace)
        returnvalue, reason = outcome[:2]
        written = {"failedReason": reason.encode()} if returnvalue is None else {"returnvalue": returnvalue}
        self._ended(finished_on, **written)
        if not fetch_next:
            return None
        return by_hand(self._worker, hand, port().call(hand.fetch, token, False))


def by_hand(worker: Any, hand: NativeByHand, stored: Any) -> Job[Any, Any] | None:
    """A job that its user finishes without a worker's loop."""
    record, reported = stored
    for error in reported:
        worker._tell("error", error)
    if record is None:
        return None
    job: Job[Any, Any] = Job(worker._queue, record)
    job._hand, job._worker = hand, worker
    return job


def _key_of(child: Any) -> str | None:
    if child is None:
        return None
    if isinstance(child, JobFields):
        return f"{child._queue.prefix}:{child.queue_name}:{child.id}"
    key = text("child", child)
    if key.count(":") < 2:
        raise ConfigurationError(f"child: got {key!r}; allowed is a job, or its full key (prefix:queue:id)")
    return key
