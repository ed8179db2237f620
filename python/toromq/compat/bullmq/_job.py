"""bullmq's Job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import toromq
from toromq import sync
from toromq._bridge import to_json
from toromq._packing import packed
from toromq.compat.bullmq._adapter import ask, missing
from toromq.compat.bullmq._options import Opts, job_options, shown

if TYPE_CHECKING:
    from toromq.compat.bullmq._queue import Queue


class Job:
    """A job. In a processor that is a plain function its methods block; everywhere else they are awaited.

    Attributes:
        queue: the Queue or Worker it comes from.
    """

    discarded = False

    def __init__(self, queue: Queue, name: str, data: Any, opts: Opts = None, job_id: str | None = None) -> None:
        """One that is not stored anywhere; `queue.add` stores one."""
        _, name, text, stored, timestamp, delay, priority, *_ = packed(
            name, to_json(data, "data"), job_options(opts), queue.toromq.default_job_options
        )
        described = {
            "id": job_id or "", "name": name, "data": text.decode(), "opts": stored.decode(), "timestamp": timestamp,
            "delay": delay, "priority": priority,
        }  # fmt: skip
        self._set(queue, toromq.Job.from_json(queue.toromq, described))

    @classmethod
    def _of(cls, queue: Any, job: Any) -> Job:
        made = cls.__new__(cls)
        made._set(queue, job)
        return made

    def _set(self, queue: Any, job: Any) -> None:
        self.queue = queue
        self._inner: Any = job
        self._opts: dict[str, Any] | None = None

    @property
    def toromq(self) -> Any:
        """The real job behind it: a toromq.Job, or in a thread a toromq.sync.Job."""
        if _would_block_a_loop(self._inner):
            self._inner = self.queue._job_on_the_loop(self._inner)
        return self._inner

    @property
    def id(self) -> str | None:
        """Its id."""
        return self._inner.id or None

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._inner.name)

    @property
    def data(self) -> Any:
        """What it was added with."""
        return self._inner.data

    @property
    def opts(self) -> dict[str, Any]:
        """Its options, by bullmq's names."""
        if self._opts is None:
            self._opts = shown(self._inner.opts)
        return self._opts

    @property
    def timestamp(self) -> int:
        """When it was added, in milliseconds since the epoch."""
        return int(self._inner.timestamp)

    @property
    def delay(self) -> int:
        """How many milliseconds it waits before its first run."""
        return int(self._inner.delay)

    @property
    def priority(self) -> int:
        """0 for a standard job; lower runs first."""
        return int(self._inner.priority)

    @property
    def attempts(self) -> int:
        """How often it is tried in all."""
        return int(self.opts["attempts"])

    @property
    def attemptsMade(self) -> int:
        """How often it ended."""
        return int(self._inner.attempts_made)

    @property
    def attemptsStarted(self) -> int:
        """How often it was begun."""
        return int(self._inner.attempts_started)

    @property
    def stalledCounter(self) -> int:
        """How often its worker died."""
        return int(self._inner.stalled_counter)

    @property
    def progress(self) -> Any:
        """What its processor last reported; 0 before."""
        return self._inner.progress

    @property
    def returnvalue(self) -> Any:
        """What its processor returned."""
        return self._inner.returnvalue

    @property
    def failedReason(self) -> str | None:
        """Why its last attempt failed."""
        reason: str | None = self._inner.failed_reason
        return reason

    @property
    def stacktrace(self) -> list[str]:
        """A traceback for each failed attempt."""
        return list(self._inner.stacktrace)

    @property
    def processedOn(self) -> int:
        """When its last run began, in milliseconds since the epoch; 0 before."""
        return self._inner.processed_on or 0

    @property
    def finishedOn(self) -> int:
        """When it completed or failed, in milliseconds since the epoch; 0 before."""
        return self._inner.finished_on or 0

    @property
    def deferredFailure(self) -> str | None:
        """Why the next worker will fail it without running it."""
        failure: str | None = self._inner.deferred_failure
        return failure

    @property
    def removeOnComplete(self) -> Any:
        """Its option."""
        return self.opts.get("removeOnComplete", True)

    @property
    def removeOnFail(self) -> Any:
        """Its option."""
        return self.opts.get("removeOnFail", False)

    @property
    def repeatJobKey(self) -> str | None:
        """The id of the job scheduler that made it."""
        key: str | None = self._inner.repeat_job_key
        return key

    @property
    def token(self) -> str | None:
        """The token under which it is locked for this worker."""
        return self._inner.token or None

    @property
    def parentKey(self) -> str | None:
        """The full key of its parent."""
        key: str | None = self._inner.parent_key
        return key

    @property
    def parent(self) -> dict[str, Any] | None:
        """Its parent: id and queueKey."""
        parent: dict[str, Any] | None = self._inner.parent
        return parent

    @property
    def deduplication_id(self) -> str | None:
        """The deduplication id it was added with."""
        found: str | None = self._inner.deduplication_id
        return found

    @property
    def queueQualifiedName(self) -> str:
        """The queue's prefix and name."""
        return str(self._inner.queue_qualified_name)

    def updateData(self, data: Any) -> Any:
        """Replace its data."""
        return ask(self.toromq.update_data, data)

    def updateProgress(self, progress: Any) -> Any:
        """Store and publish its progress."""
        return ask(self.toromq.update_progress, progress)

    def log(self, logRow: str) -> Any:
        """Append a line to its log; gives how many there are."""
        return ask(self.toromq.log, logRow)

    @staticmethod
    async def addJobLog(queue: Queue, jobId: str, logRow: str, keepLogs: int = 0) -> int:
        """Append a line to the log of any job; gives how many there are."""
        count: int = await ask(queue.toromq.add_job_log, jobId, logRow, keepLogs)
        return count

    @staticmethod
    async def fromId(queue: Queue, jobId: str) -> Job | None:
        """The same as `queue.getJob`."""
        return await queue.getJob(jobId)

    @staticmethod
    def fromJSON(queue: Queue, rawData: dict[str, Any], jobId: str | None = None) -> Job:
        """A job from its fields as they are stored."""
        return Job._of(queue, toromq.Job.from_json(queue.toromq, rawData, jobId))

    def getState(self) -> Any:
        """The state it is in."""
        return ask(self.toromq.get_state)

    def isActive(self) -> Any:
        """Whether a worker has it."""
        return ask(self.toromq.is_active)

    def isCompleted(self) -> Any:
        """Whether it completed."""
        return ask(self.toromq.is_completed)

    def isDelayed(self) -> Any:
        """Whether it waits for its time."""
        return ask(self.toromq.is_delayed)

    def isFailed(self) -> Any:
        """Whether it failed for good."""
        return ask(self.toromq.is_failed)

    def isWaiting(self) -> Any:
        """Whether it waits to run, as a standard job."""
        return ask(self.toromq.is_waiting)

    def isWaitingChildren(self) -> Any:
        """Whether it waits for its children."""
        return ask(self.toromq.is_waiting_children)

    def isInList(self, list_name: str) -> Any:
        """Whether it is in a list of the queue: wait or active."""
        return self._is_in(list_name)

    def isInZSet(self, set: str) -> Any:
        """Whether it is in a sorted set of the queue: completed, failed, delayed, prioritized or waiting-children."""
        return self._is_in(set)

    def _is_in(self, name: str) -> Any:
        state = "waiting" if name in ("wait", "paused") else name
        return ask(self.toromq.get_state, then=lambda found: found == state)

    def promote(self) -> Any:
        """Queue it now, although it is delayed."""
        return ask(self.toromq.promote)

    def changePriority(self, opts: dict[str, Any]) -> Any:
        """Give it another `priority`; with `lifo`, before the others of that priority."""
        return ask(self.toromq.change_priority, priority=opts.get("priority", 0), lifo=opts.get("lifo", False))

    def remove(self, opts: Opts = None) -> Any:
        """Delete it and, unless `removeChildren` is False, all jobs below it."""
        return ask(self.toromq.remove, remove_children=(opts or {}).get("removeChildren", True))

    def retry(self, state: str = "failed", opts: Opts = None) -> Any:
        """Queue it again after it failed or completed; options: resetAttemptsMade, resetAttemptsStarted."""
        given = opts or {}
        return ask(
            self.toromq.retry,
            state,
            reset_attempts_made=given.get("resetAttemptsMade", False),
            reset_attempts_started=given.get("resetAttemptsStarted", False),
        )

    def getChildrenValues(self) -> Any:
        """The results of its children, each under the child's full key."""
        return ask(self.toromq.get_children_values)

    def moveToDelayed(self, timestamp: int, token: str) -> Any:
        """For its processor, which then raises DelayedError: let it run at `timestamp`."""
        return ask(self.toromq.move_to_delayed, timestamp, token)

    def moveToWaitingChildren(self, token: str, opts: Opts) -> Any:
        """For its processor, which then raises WaitingChildrenError if it says True: let it wait for its children."""
        child = (opts or {}).get("child")
        return ask(
            self.toromq.move_to_waiting_children, token, child=child and f"{child.get('queue')}:{child.get('id')}"
        )

    def moveToCompleted(self, return_value: Any, token: str, fetchNext: bool = False) -> Any:
        """Finish a job that was fetched by hand; with `fetchNext` gives the next one."""
        return self._finish(self.toromq.move_to_completed, return_value, token, fetchNext)

    def moveToFailed(self, err: BaseException, token: str, fetchNext: bool = False) -> Any:
        """Fail a job that was fetched by hand; with `fetchNext` gives the next one."""
        return self._finish(self.toromq.move_to_failed, err, token, fetchNext)

    def _finish(self, move: Any, outcome: Any, token: str, fetch_next: bool) -> Any:
        return ask(move, outcome, token, fetch_next, then=lambda job: job and Job._of(self.queue, job))

    updateStacktrace = missing("Job.updateStacktrace", "the engine stores the tracebacks of failed attempts by itself")


def _would_block_a_loop(job: Any) -> bool:
    """Whether a plain function got the job and only made a coroutine of it, which runs on the worker's loop."""
    if not isinstance(job, sync.Job):
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
