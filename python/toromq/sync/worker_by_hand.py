# Made from ../worker_by_hand.py by tools/make_sync.py; change that one.
"""Jobs that are fetched, run and finished by hand, without a worker's loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from toromq._bridge import blocking_port as port
from toromq._endings import DELAY_WITHOUT_END, FINISHED_BEFORE_CHILDREN, STEERING, refusal_of
from toromq._guards import is_collection
from toromq._job_fields import DataT, ResultT, Run
from toromq._worker_base import WorkerBase
from toromq.errors import (
    ConfigurationError,
    DelayedError,
    FailedChildrenError,
    PendingChildrenError,
    RateLimitError,
    SerializationError,
    ToroError,
    UnrecoverableError,
    WaitingChildrenError,
)
from toromq.options import check_token, flag, job_id_of, some_milliseconds
from toromq.sync.job import Job, by_hand


class ByHand(WorkerBase[DataT, ResultT]):
    """What a worker does for somebody who fetches its jobs."""

    def get_next_job(self, token: str, block: bool = True) -> Job[DataT, ResultT] | None:
        """Fetch one job by hand, locked under `token` for `lock_duration`; its lock is not renewed.

        Finish it with `job.move_to_completed` or `job.move_to_failed`, or let `process_job` run it. With `block`, waits
        up to `drain_delay`.
        """
        hand, waits = self._by_hand(token), flag("block", block)
        since = time.time_ns()
        job = by_hand(self, hand, port().call(hand.fetch, token, waits))
        if job is not None and self._tracing is not None:
            self._tracing.fetched(job, since, waits)
        return job

    def process_job(
        self, job: Job[DataT, ResultT], token: str | None = None, fetch_next: bool = True
    ) -> Job[DataT, ResultT] | None:
        """Run the processor on a job that was fetched by hand, and write what became of it, as a running worker does.

        Its lock is not renewed meanwhile: a processor that may take longer than `lock_duration` calls
        `job.extend_lock`. A plain function runs in a thread.

        Args:
            job: from `get_next_job`.
            token: under which it is locked; default: its own.
            fetch_next: whether to fetch the next one, under the same token.

        Returns:
            The next job, or None where there is none.

        Raises:
            LockMissingError, LockMismatchError: the lock is gone; what became of the job is not stored.
            RedisConnectionError: Redis stayed away for the connection's `command_timeout`.
        """
        lock, next_too = check_token(job.token if token is None else token), flag("fetch_next", fetch_next)
        if not self._processors:
            raise ConfigurationError("processor: None, so this worker runs no jobs; give it a function")
        if self._tracing is None:
            return self._process(job, lock, next_too)
        with self._tracing.run_by_hand(job):
            return self._process(job, lock, next_too)

    def _process(self, job: Job[DataT, ResultT], lock: str, next_too: bool) -> Job[DataT, ResultT] | None:
        error: BaseException | None = None
        result: Any = None
        try:
            reason = refusal_of(job, self._options["max_started_attempts"])
            if reason is not None:
                raise UnrecoverableError(reason)
            self._tell("active", job)
            if self._has_data_type:
                self._check_data(job)
            result = self._call(job)
        except Exception as raised:
            error = raised
        if isinstance(error, STEERING):
            self._steer_by_hand(job, lock, error)
            return self.get_next_job(lock, block=False) if next_too else None
        if error is None:
            if self._tracing is not None:
                self._tracing.note_return(job)
            try:
                following = job.move_to_completed(result, lock, next_too)
            except (SerializationError, FailedChildrenError) as refused:
                error = refused
            except PendingChildrenError:
                error = ToroError(FINISHED_BEFORE_CHILDREN.format(job.id))
            else:
                self._tell("completed", job, result)
                return following  # type: ignore[no-any-return]
        if self._tracing is not None:
            self._tracing.note_failure(job, error)
        following = job.move_to_failed(error, lock, next_too)
        self._tell("failed", job, error)
        return following  # type: ignore[no-any-return]

    def _steer_by_hand(self, job: Job[DataT, ResultT], lock: str, signal: BaseException) -> None:
        if self._tracing is not None:
            self._tracing.put_back(job, signal)
        if job._moved is not None:
            return
        if isinstance(signal, DelayedError) and signal.due is not None:
            job.move_to_delayed(signal.due, lock)
            return
        if isinstance(signal, WaitingChildrenError) and job.move_to_waiting_children(lock):
            return
        if isinstance(signal, DelayedError):
            self._tell("error", ToroError(DELAY_WITHOUT_END.format(job.id)))
        if isinstance(signal, RateLimitError) and signal.retry_after is not None:
            self._queue.rate_limit(signal.retry_after)
        job.move_to_wait(lock)

    def start_stalled_check_timer(self) -> None:
        """Look for jobs whose worker died, now and after each `stalled_interval`, until the worker is closed.

        For those who fetch by hand: a worker that runs does so by itself, unless `skip_stalled_check` is set.

        Raises:
            ToroError: the worker was closed.
        """
        if self._is_closed:
            raise ToroError(f"the worker of {self.queue_name} was closed; make a new one")
        looks_itself = self._native is not None and not self._options["skip_stalled_check"]
        if not looks_itself and self._checking is None:
            hand = self._hand_of_this_process()
            self._checking, _ = port().attach(self._receive, hand.check_stalled)
            self._note_life()

    def extend_job_locks(
        self, job_ids: Sequence[str], tokens: Sequence[str], duration: int | timedelta
    ) -> list[str]:
        """Let the locks of many jobs live for `duration` (milliseconds or a timedelta) from now on.

        Args:
            job_ids: the jobs.
            tokens: under which they are locked, in the same order.
            duration: how long.

        Returns:
            The ids of those whose lock is gone, or another's; theirs were left as they are.
        """
        ids, locks = (list(given) if is_collection(given) else None for given in (job_ids, tokens))
        if ids is None or locks is None or len(ids) != len(locks):
            raise ConfigurationError(f"tokens: got {tokens!r} for {job_ids!r}; allowed is a list with one for each job")
        runs: list[Run] = [(job_id_of(job_id), check_token(token)) for job_id, token in zip(ids, locks, strict=True)]
        keeper = self._native if self._native is not None and self._is_ours() else self._queue._native()
        lost: list[str] = port().call(keeper.extend_locks, runs, some_milliseconds("duration", duration))
        return lost
