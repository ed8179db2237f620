"""What every class of the drop-in does: calling the real API, listeners, and saying what is not there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import new_class
from typing import Any, ClassVar, NoReturn

from toromq.errors import ScriptError, SerializationError, ToroError

Function = Callable[..., Any]
Arguments = tuple[Any, ...]
Told = dict[str, tuple[str, Callable[[Any, Arguments], Arguments]]]


class NotSupportedError(ToroError, NotImplementedError):
    """The package bullmq has this and toromq has not; the message names what is missing."""


def ask(method: Function, *arguments: Any, then: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    """What a method of the real API gives, or an awaitable of it; `then` makes of it what bullmq would give."""
    try:
        answer = method(*arguments, **options)
    except (ScriptError, SerializationError) as error:
        raise _as_bullmq(error) from None
    if inspect.isawaitable(answer):
        return _answer(answer, then)
    return answer if then is None else then(answer)


async def _answer(awaitable: Awaitable[Any], then: Callable[[Any], Any] | None) -> Any:
    try:
        answer = await awaitable
    except (ScriptError, SerializationError) as error:
        raise _as_bullmq(error) from None
    return answer if then is None else then(answer)


def _as_bullmq(error: Exception) -> Exception:
    """The same error, which can be caught as a TypeError too: bullmq raises that for everything a script refuses."""
    kind = type(error)
    if kind not in _typed:
        _typed[kind] = new_class(kind.__name__, (kind, TypeError), {}, lambda space: space.update(_of(kind)))
    mended = _typed[kind](*error.args).with_traceback(error.__traceback__)
    mended.__dict__.update(error.__dict__)
    return mended


def _of(kind: type[Exception]) -> dict[str, Any]:
    return {"__module__": kind.__module__, "__doc__": kind.__doc__}


_typed: dict[type[Exception], type[Exception]] = {}


class EventEmitter:
    """Calls functions at events.

    Events that the real API tells come from there: listeners may be `async`, and one that raises is logged and stops
    nobody. Other events are those that the program emits itself.
    """

    # Of bullmq's events, which the real API tells: its name there, and what a listener gets of what is told.
    _TOLD: ClassVar[Told] = {}

    def __init__(self) -> None:
        self._callbacks: dict[str, list[tuple[Function, Function]]] = {}
        self._tasks: set[asyncio.Future[Any]] = set()

    def _teller(self) -> Any:
        """The object of the real API whose events these are."""
        return None

    def on(self, event_name: str, function: Function) -> Function:
        """Call a function at an event."""
        listener = function
        if event_name in self._TOLD:
            told, convert = self._TOLD[event_name]

            def listener(*arguments: Any) -> Any:
                return function(*convert(self, arguments))

            self._teller().on(told, listener)
        self._callbacks.setdefault(event_name, []).append((function, listener))
        return function

    def off(self, event_name: str, function: Function) -> None:
        """Stop calling a function."""
        for entry in self._callbacks.get(event_name, []):
            if entry[0] == function:
                self._callbacks[event_name].remove(entry)
                if event_name in self._TOLD:
                    self._teller().off(self._TOLD[event_name][0], entry[1])
                return

    def emit(self, event_name: str, *args: Any, **kwargs: Any) -> None:
        """Call the functions of an event."""
        for function, _ in list(self._callbacks.get(event_name, [])):
            answer = function(*args, **kwargs)
            if inspect.isawaitable(answer):
                task = asyncio.ensure_future(answer)
                # The loop alone holds a task weakly.
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


def missing(what: str, instead: str) -> Function:
    """A method that bullmq has and that can't be offered; `instead` says what there is."""

    def method(self: Any, *arguments: Any, **options: Any) -> NoReturn:
        raise NotSupportedError(f"{what} is not there in toromq.compat.bullmq: {instead}")

    method.__doc__ = f"Not there: {instead}."
    method.not_supported = instead  # type: ignore[attr-defined]
    return method
