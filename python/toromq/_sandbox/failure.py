"""Exceptions on their way from one process to another: as what they say, never as objects."""

from __future__ import annotations

from typing import Any

from toromq import errors
from toromq._failure import failure_of
from toromq.errors import SandboxError


def packed_error(error: BaseException) -> dict[str, Any]:
    """What a frame says of an exception."""
    reason, stack, _ = failure_of(error)
    known = next((kind for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind), None)
    plain = str | int | float | None
    return {
        "type": type(error).__qualname__,
        "known": "" if known is None else known.__name__,
        "reason": reason,
        "stack": stack,
        # Such as the code of a reply. What is more than a number or a text is the user's own.
        "fields": {name: value for name, value in vars(error).items() if isinstance(value, plain)} if known else {},
    }


def unpacked_error(packed: dict[str, Any], *, with_stack: bool) -> Exception:
    """An exception to raise for it: of the nearest class that toromq has for it, else a SandboxError.

    `with_stack` for one that ends a job: the job's stack trace is then the one it had where it was raised first.
    """
    kind: type[Exception] | None = vars(errors).get(packed["known"])
    if kind is None:
        error: Exception = SandboxError(packed["reason"], packed["type"])
    else:
        error = kind.__new__(kind)
        error.args = (packed["reason"],)
        vars(error).update(packed["fields"])
    if with_stack:
        carry_stack(error, packed["stack"])
    return error


def carry_stack(error: Exception, stack: str) -> None:
    """Let a job that fails with this exception have this for its stack trace; logs show it as well."""
    error._stack = stack  # type: ignore[attr-defined]
    error.__cause__ = _StackElsewhereError(stack)


class _StackElsewhereError(Exception):
    """The cause of an exception that came from another process, so that whoever prints it sees where it was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0].rstrip()}"
