"""Every exception that toromq raises."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any


class ToroError(Exception):
    """The base of all errors of toromq."""


class ConfigurationError(ToroError, ValueError):
    """An option or argument is not allowed; the message names it and says what is."""


class SerializationError(ToroError, ValueError):
    """Data cannot be stored as JSON, or stored text is not JSON; the message gives the path to it."""


class RedisConnectionError(ToroError, ConnectionError):
    """Redis could not be reached, or the connection broke; the message says what was tried."""


class ScriptError(ToroError):
    """An operation was refused by Redis; `code` is the reply code and `job_id` the job, where there is one.

    Attributes:
        added: from `add_bulk`, the jobs in the order given, with None for each that was refused.
    """

    added: Sequence[Any] = ()

    def __init__(self, message: str, code: int = 0, job_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.job_id = job_id


class JobNotFoundError(ScriptError):
    """There is no job with this id."""


class JobFailedError(ToroError):
    """A job that was waited for failed for good.

    Attributes:
        job_id: the job.
        failed_reason: why, in the words of its last attempt.
        queue_name: its queue.
    """

    def __init__(self, message: str, job_id: str = "", failed_reason: str = "", queue_name: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id
        self.failed_reason = failed_reason
        self.queue_name = queue_name


class JobTimeoutError(ToroError, TimeoutError):
    """A job did not end within the time it was waited for; it goes on."""

    def __init__(self, message: str, job_id: str = "", queue_name: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id
        self.queue_name = queue_name


class JobNotInStateError(ScriptError):
    """The job is not in the state that the operation needs."""


class LockMissingError(ScriptError):
    """The job has no lock: it ran out or was removed."""


class LockMismatchError(ScriptError):
    """Another worker holds the job's lock."""


class ParentConflictError(ScriptError):
    """The job is the child of another parent that exists, or its parent is one of the jobs below it."""


class PendingChildrenError(ScriptError):
    """The job still has pending children."""


class ParentNotFoundError(ScriptError):
    """The job's parent does not exist."""


class SchedulerConflictError(ScriptError):
    """The job is the next one of a job scheduler, and goes only with it."""


class FailedChildrenError(ScriptError):
    """The job has at least one failed child."""


class JobCancelledError(ToroError):
    """A running job was told to end; the message is the reason. Its attempt fails with that, if it ends by it."""


def not_all_added(outcomes: Sequence[Any], added: Sequence[Any]) -> ScriptError:
    """What `add_bulk` raises when some jobs were refused: `added` has None for these, `outcomes` their errors."""
    refused = [n for n, job in enumerate(added) if job is None]
    first = outcomes[refused[0]]
    names = [f"jobs[{n}]" for n in refused[:10]] + (["and others"] if len(refused) > 10 else [])
    stored = len(added) - len(refused)
    rest = {0: "none was added", 1: "the other one was added"}.get(stored, f"the {stored} others were added")
    error: ScriptError = type(first)(f"{', '.join(names)}: {first}; {rest}", first.code, first.job_id)
    error.added = added
    return error


class EventError(ToroError):
    """An entry in a queue's stream of events is not what an event of its name is, or is itself an event named "error".

    It is passed over, and what comes after it arrives. What is wrong with it is the `__cause__`.

    Attributes:
        event_id: the entry.
        event: the name of its event.
    """

    def __init__(self, message: str, event_id: str = "", event: str = "") -> None:
        super().__init__(message)
        self.event_id = event_id
        self.event = event


class EventsLostError(ToroError):
    """Events went unread: they were trimmed before they could be read, or the stream was deleted.

    Attributes:
        last_event_id: the last entry that was read before.
    """

    def __init__(self, message: str, last_event_id: str = "") -> None:
        super().__init__(message)
        self.last_event_id = last_event_id


class SandboxError(ToroError):
    """A processor in a child process raised an exception that is not one of these, or the process ended under its job.

    The message is that of the exception, or says by which signal or exit code the process ended; `type` is the name of
    the exception's class, empty where the process ended. The traceback from the child is the `__cause__`.
    """

    def __init__(self, message: str, type: str = "") -> None:
        super().__init__(message)
        self.type = type


class JobControl(Exception):
    """The base of what a processor raises to steer its job rather than to complain."""


class UnrecoverableError(JobControl):
    """Fail the job now, whatever attempts it has left."""


class DelayedError(JobControl):
    """The job is to run later, which spends no attempt.

    Raise it after `job.move_to_delayed(...)`, or let it do that: `raise DelayedError(delay=5000)`. Without either, the
    worker can only put the job back to where it waited, and reports an error.

    Args:
        message: for whoever reads a log.
        delay: from now, in milliseconds or as a timedelta.
        run_at: the moment itself, as an aware datetime or in milliseconds since the epoch.

    Raises:
        ConfigurationError: `delay` or `run_at` is not allowed, or both are given.
    """

    def __init__(
        self, message: str = "", *, delay: int | timedelta | None = None, run_at: int | datetime | None = None
    ) -> None:
        # Options are checked where all of them are, which needs the errors of this file.
        from toromq.options import milliseconds, moment

        super().__init__(*((message,) if message else ()))
        if delay is not None and run_at is not None:
            raise ConfigurationError("delay and run_at: give one of them")
        self.due: int | None = None
        if delay is not None:
            self.due = time.time_ns() // 1_000_000 + milliseconds("delay", delay)
        elif run_at is not None:
            self.due = moment("run_at", run_at)


class WaitingError(JobControl):
    """The job goes back to where it waited and is the next of its kind to run, which spends no attempt.

    `job.move_to_wait()` may have put it there already.
    """


class WaitingChildrenError(JobControl):
    """The job waits for its children and runs again when they have ended, which spends no attempt.

    Raise it when `job.move_to_waiting_children()` said so. Without that call the worker makes it; where no child is
    left to wait for, the job then runs again at once.
    """


class RateLimitError(JobControl):
    """Put the job back to where it waited, next to run; it ran into a rate limit, which is no failure.

    Its worker begins no job until the limit ends that `worker.rate_limit` or `queue.rate_limit` has set, or that the
    queue itself has reached.

    Args:
        message: for whoever reads it.
        retry_after: how long the limit lasts, in milliseconds or as a timedelta, where nobody has set it before.
    """

    def __init__(self, message: str = "", *, retry_after: int | timedelta | None = None) -> None:
        # Options know the errors, not the other way round.
        from toromq.options import some_milliseconds

        super().__init__(*((message,) if message else ()))
        self.retry_after = None if retry_after is None else some_milliseconds("retry_after", retry_after)
