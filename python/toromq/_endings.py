"""How a processor ended, and what that means for its job."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final

from toromq._job_fields import JobFields
from toromq.errors import DelayedError, JobCancelledError, RateLimitError, WaitingChildrenError, WaitingError

# What a processor raises to say where its job goes.
STEERING: Final = (DelayedError, RateLimitError, WaitingChildrenError, WaitingError)
# Which of them belongs to a move.
SIGNALS: Final = {"delayed": "DelayedError", "wait": "WaitingError", "waiting-children": "WaitingChildrenError"}
DELAY_WITHOUT_END: Final = (
    "the processor of job {} raised DelayedError and did not say until when, so the job runs again now; call "
    "job.move_to_delayed() before, or raise DelayedError(delay=...)"
)
# The words of every client of this wire.
FINISHED_BEFORE_CHILDREN: Final = "Job {} has pending dependencies. moveToFinished"
_STARTED_TOO_OFTEN: Final = "job started more than allowable limit"


def waits_for_children(job: JobFields[Any, Any], signal: BaseException) -> bool:
    """Whether a job is still to be moved to where it waits for its children."""
    return isinstance(signal, WaitingChildrenError) and job._moved is None


def is_handed_back(job: JobFields[Any, Any], error: BaseException) -> bool:
    """Whether a job ended as it was told to by a close, or by the loss of its lock: that is no failure."""
    if not isinstance(error, JobCancelledError):
        return False
    told = job._cancellation
    return told.is_set() and not told.fails


def refusal_of(job: JobFields[Any, Any], most_starts: int | None) -> str | None:
    """Why a job that was fetched must not be run, if so."""
    if job.deferred_failure is not None:
        return job.deferred_failure
    return _STARTED_TOO_OFTEN if most_starts is not None and job.attempts_started > most_starts else None


def as_delay(answer: Any) -> float | None:
    """What a backoff strategy said, as the engine takes it."""
    if answer is None:
        return None
    if isinstance(answer, timedelta):
        answer = answer / timedelta(milliseconds=1)
    if not math.isfinite(delay := float(answer)) or delay >= 2**53:
        raise ValueError(f"the backoff strategy said {answer!r}; allowed are milliseconds, or -1 for no retry")
    return delay
