"""The functions that a worker runs on its jobs: one for all, or one for each name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from toromq.errors import ConfigurationError
from toromq.options import text


class Processor(NamedTuple):
    """A function, and whether it is a coroutine function."""

    call: Callable[[Any], Any]
    is_async: bool


class Processors:
    """Knows which function runs a job."""

    def __init__(self, allow_async: bool) -> None:
        """Without any; `allow_async` where there is an event loop."""
        self._allow_async = allow_async
        # By the name of the jobs it runs, None for all that have no other.
        self._by_name: dict[str | None, Processor] = {}

    def add(self, name: str | None, given: Any) -> None:
        """Let a function run the jobs of this name, or with None those that no other runs."""
        if not callable(given):
            more = ", or a text that names one" if name is None else ""
            raise ConfigurationError(f"processor: got {given!r}; allowed is a function that takes a job{more}")
        if name is not None:
            text("name", name)
        if name in self._by_name:
            whose = "all jobs" if name is None else f"jobs named {name!r}"
            raise ConfigurationError(f"processor: there is one for {whose} already")
        call = getattr(given, "__call__", None)  # noqa: B004 - an object may have an async __call__
        is_async = inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(call)
        if is_async and not self._allow_async:
            raise ConfigurationError(
                "processor: there is no event loop here for an async function; use toromq.Worker"
            )
        self._by_name[name] = Processor(given, is_async)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._by_name)

    @property
    def any_async(self) -> bool:
        """Whether any of them is a coroutine function."""
        return any(processor.is_async for processor in self._by_name.values())

    def runs_in_threads(self) -> tuple[bool, dict[str, bool]]:
        """Whether jobs run in threads: those without a processor for their name, and for each name that has one."""
        default = self._by_name.get(None)
        in_threads = not self.any_async if default is None else not default.is_async
        return in_threads, {name: not one.is_async for name, one in self._by_name.items() if name is not None}

    @property
    def only(self) -> Callable[[Any], Any] | None:
        """The one that runs all jobs, if there are no others."""
        default = self._by_name.get(None)
        return None if default is None or len(self._by_name) > 1 else default.call

    def is_async(self, name: str) -> bool:
        """Whether what runs a job of this name is a coroutine function."""
        found = self._by_name.get(name) or self._by_name.get(None)
        return found is not None and found.is_async

    def of(self, name: str) -> Callable[[Any], Any]:
        """What runs a job of this name; a function that fails it where nothing does."""
        found = self._by_name.get(name) or self._by_name.get(None)
        return found.call if found is not None else self._refuse

    def _refuse(self, job: Any) -> Any:
        names = ", ".join(repr(name) for name in self._by_name)
        raise ConfigurationError(f"no processor for jobs named {job.name!r}; this worker has them for {names}")
