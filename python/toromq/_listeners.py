"""Functions that users want called at events, for everything that has events."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar, overload

from toromq.errors import ConfigurationError

log = logging.getLogger("toromq")

# Seconds for which the same error is logged once.
_LOG_PAUSE = 10.0
Listener = Callable[..., Any]
ListenerT = TypeVar("ListenerT", bound=Listener)


class Listeners:
    """Calls listeners where the event happens. One that raises is logged and stops nobody."""

    EVENTS: ClassVar[frozenset[str]]
    _awaits: ClassVar[bool] = False

    def __init__(self, owner: str) -> None:
        """For `owner`, as the log calls it."""
        self._owner = owner
        self._listeners: dict[str, list[Listener]] = {}
        self._logged: dict[str, float] = {}

    @overload
    def on(self, event: str, listener: ListenerT) -> ListenerT: ...
    @overload
    def on(self, event: str, listener: None = None) -> Callable[[ListenerT], ListenerT]: ...
    def on(self, event: str, listener: Any = None) -> Any:
        """Call `listener` at an event; without one, a decorator. The class says which events there are.

        Raises:
            ConfigurationError: there is no such event, or the listener can't be called here.
        """
        self._check_event(event)
        if listener is None:

            def decorator(listener: ListenerT) -> ListenerT:
                return self.on(event, listener)

            return decorator
        self._check_listener(listener)
        self._listeners.setdefault(event, []).append(listener)
        return listener

    def once(self, event: str, listener: ListenerT) -> ListenerT:
        """Call `listener` at the next such event only."""

        def first(*arguments: Any) -> Any:
            self.off(event, first)
            return listener(*arguments)

        self._check_listener(listener)
        first.listener = listener  # type: ignore[attr-defined]
        self.on(event, first)
        return listener

    def off(self, event: str, listener: Listener) -> None:
        """Stop calling a listener, whether it was given to `on` or `once`."""
        for known in self._listeners.get(event, ()):
            if known == listener or getattr(known, "listener", None) == listener:
                self._listeners[event].remove(known)
                return

    def _check_event(self, event: str) -> None:
        if event not in self.EVENTS:
            import difflib  # Only for those who mistype.

            near = difflib.get_close_matches(str(event), self.EVENTS, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"event: got {event!r}; allowed are {', '.join(sorted(self.EVENTS))}{hint}")

    def _check_listener(self, listener: Listener) -> None:
        if not callable(listener):
            raise ConfigurationError(f"listener: got {listener!r}; allowed is a function")
        if not self._awaits and inspect.iscoroutinefunction(listener):
            raise ConfigurationError(
                f"listener: nothing would await an async function here; use toromq.{type(self).__name__} for it"
            )

    def _tell(self, event: str, *arguments: Any) -> None:
        """Call the listeners of an event where this face calls them; from any thread."""
        self._emit(event, *arguments)

    def _emit(self, event: str, *arguments: Any) -> list[Any]:
        """Call the listeners of an event here and now; give what they returned."""
        listeners = self._listeners.get(event)
        if not listeners:
            if event == "error":
                self._log_error(str(arguments[0]))
            return []
        answers: list[Any] = []
        for listener in list(listeners):
            try:
                answers.append(listener(*arguments))
            except BaseException as error:
                log.exception("a listener for %s of %s raised", event, self._owner)
                # A program's wish to end is heard where it can be; a thread of ours would end alone, without a word.
                if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                    raise
        return answers

    def _log_error(self, message: str) -> None:
        now = time.monotonic()
        # While Redis is away every try fails with the same words.
        if now - self._logged.get(message, -_LOG_PAUSE) >= _LOG_PAUSE:
            self._logged = {known: when for known, when in self._logged.items() if now - when < _LOG_PAUSE}
            self._logged[message] = now
            log.error("%s: %s", self._owner, message)


class AsyncListeners(Listeners):
    """The same on an event loop, where listeners may be `async`: each gets a task of its own."""

    _awaits = True

    def __init__(self, owner: str) -> None:
        """For `owner`, as the log calls it."""
        super().__init__(owner)
        self._background: set[asyncio.Future[Any]] = set()

    def _emit(self, event: str, *arguments: Any) -> list[Any]:
        for answer in super()._emit(event, *arguments):
            if inspect.isawaitable(answer):
                self._keep_task(asyncio.ensure_future(self._listen(answer, event)))
        return []

    def _keep_task(self, task: asyncio.Future[Any]) -> None:
        # The loop alone holds a task weakly.
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _listen(self, answer: Awaitable[Any], event: str) -> None:
        try:
            await answer
        except Exception:
            log.exception("a listener for %s of %s raised", event, self._owner)
