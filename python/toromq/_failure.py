"""What is written down of an exception that ended a job's attempt."""

from __future__ import annotations

from typing import NamedTuple

from toromq._traceback import traceback_text
from toromq.errors import FailedChildrenError, SerializationError, UnrecoverableError

# What no further try would mend: it was said so, the result is no JSON, or the child that failed will not come back.
HOPELESS = (UnrecoverableError, SerializationError, FailedChildrenError)


class Failure(NamedTuple):
    """As the engine takes it: the message, the traceback, and whether the job may not be tried again."""

    reason: str
    stack: str
    unrecoverable: bool


def failure_of(error: BaseException) -> Failure:
    """Describe an exception; never raises, whatever its message does."""
    try:
        reason = str(error) or type(error).__name__
    except Exception:
        reason = f"{type(error).__name__}, whose message could not be made"
    try:
        # One that came from another process brings the traceback it had there.
        stack = getattr(error, "_stack", None) or traceback_text(error)
    except Exception as broken:
        # Python asks the exception for its notes, and a SyntaxError for its text; either may be anything.
        stack = f"{reason}\n(its traceback could not be made: {type(broken).__name__})"
    # What no other client could read must not be stored.
    return Failure(_storable(reason), _storable(stack), isinstance(error, HOPELESS))


def _storable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
