"""Waiting for something to become true, instead of sleeping for as long as it usually takes."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

# Short enough not to slow a test down, long enough not to load the server under test.
_INTERVAL = 0.01


def eventually(predicate: Callable[[], T], timeout: float = 10, message: str = "") -> T:
    """Call ``predicate`` until it returns something true, and return that.

    An ``AssertionError`` inside the predicate means "not yet", so that it may hold assertions of its
    own (and then ``return True``). Any other exception ends the wait.

    Raises:
        AssertionError: When ``timeout`` seconds have passed; it tells the last value or failed assertion.
    """
    deadline = time.monotonic() + timeout
    while True:
        # Taken before the call, so that a slow machine gets a last try after the deadline.
        last_try = time.monotonic() >= deadline
        failure: AssertionError | None = None
        value: T | None = None
        try:
            value = predicate()
        except AssertionError as error:
            failure = error
        if failure is None and value:
            return value
        if last_try:
            raise AssertionError(_explain(predicate, timeout, message, value, failure)) from failure
        time.sleep(_INTERVAL)


async def aeventually(
    predicate: Callable[[], T] | Callable[[], Awaitable[T]], timeout: float = 10, message: str = ""
) -> T:
    """``eventually`` for coroutines: the predicate may be a plain or an ``async`` function."""
    deadline = time.monotonic() + timeout
    while True:
        last_try = time.monotonic() >= deadline
        failure: AssertionError | None = None
        value: T | None = None
        try:
            result = predicate()
            value = await result if inspect.isawaitable(result) else result
        except AssertionError as error:
            failure = error
        if failure is None and value:
            return value
        if last_try:
            raise AssertionError(_explain(predicate, timeout, message, value, failure)) from failure
        await asyncio.sleep(_INTERVAL)


def _explain(
    predicate: Callable[[], object], timeout: float, message: str, value: object, failure: AssertionError | None
) -> str:
    what = message or _source_of(predicate)
    last = f"it last failed with: {failure}" if failure is not None else f"it last returned {value!r}"
    return f"not true within {timeout:g} s: {what}; {last}"


def _source_of(predicate: Callable[[], object]) -> str:
    try:
        lines = inspect.getsource(predicate).strip().splitlines()
    except (OSError, TypeError):
        return repr(predicate)
    return lines[0] if len(lines) == 1 else getattr(predicate, "__name__", lines[0])
