"""Every exception that toromq raises."""

from __future__ import annotations


class ToroError(Exception):
    """The base of all errors of toromq."""


class ConfigurationError(ToroError, ValueError):
    """An option or argument is not allowed; the message names it and says what is."""


class SerializationError(ToroError, ValueError):
    """Data cannot be stored as JSON, or stored text is not JSON; the message gives the path to it."""


class RedisConnectionError(ToroError, ConnectionError):
    """Redis could not be reached, or the connection broke; the message says what was tried."""


class ScriptError(ToroError):
    """An operation was refused by Redis; `code` is the reply code and `job_id` the job, where there is one."""

    def __init__(self, message: str, code: int = 0, job_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.job_id = job_id


class JobNotFoundError(ScriptError):
    """There is no job with this id."""


class JobNotInStateError(ScriptError):
    """The job is not in the state that the operation needs."""


class LockMissingError(ScriptError):
    """The job has no lock: it ran out or was removed."""


class LockMismatchError(ScriptError):
    """Another worker holds the job's lock."""


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


class JobControl(Exception):
    """The base of what a processor raises to steer its job rather than to complain."""


class UnrecoverableError(JobControl):
    """Fail the job now, whatever attempts it has left."""


class RateLimitError(JobControl):
    """Put the job back to where it waited; it ran into a rate limit, which is no failure."""
