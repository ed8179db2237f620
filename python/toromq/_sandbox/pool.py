"""The child processes of one worker."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from typing import Any

from toromq._cancellation import WORKER_CLOSES
from toromq._guards import is_tuple
from toromq._sandbox.process import Child, NotBegunError, end
from toromq._sandbox.target import target_of, type_name
from toromq.errors import ConfigurationError, SandboxError
from toromq.options import SandboxOptions, milliseconds, whole

# Held while a child is started and during a fork: a fork that knows nothing of a child would hold its pipes open, and
# the child would outlive its worker.
_guard = threading.RLock()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """A processor for plain threads: it runs each job in a child process.

    There are never more children than jobs have run at once. A child is started when a job finds none idle, and used
    again until it dies, is spent, or is one too many.
    """

    def __init__(
        self,
        processor: str | os.PathLike[str],
        options: SandboxOptions,
        data_type: Any = None,
        result_type: Any = None,
    ) -> None:
        """For a processor that is named, and the types of its jobs; starts nothing.

        Raises:
            ConfigurationError: the name is none, or an option is not allowed.
        """
        self._target = target_of(processor)
        self._types = (type_name("data_type", data_type), type_name("result_type", result_type))
        # Where there are no process groups, pipes can't be handed down as they are here either.
        if not hasattr(os, "killpg") or not sys.executable:
            raise ConfigurationError(
                "processor: child processes need a POSIX system and an interpreter in sys.executable; give a function"
            )
        kill_after, self._max_jobs = _checked(options)
        self._kill_after = kill_after / 1000
        self._most = 1
        self._idle: list[Child] = []
        self._children: set[Child] = set()
        self._jobs: set[Any] = set()
        self._is_closed = self._is_killed = False
        with _guard:
            _pools.add(self)

    def __call__(self, job: Any) -> Any:
        """Run a job in a child process.

        Raises: what the processor raised, see `Child.run`; SandboxError also when no child could be started.
        """
        with _guard:
            self._jobs.add(job)
        try:
            while True:
                child = self._take(job)
                try:
                    return child.run(job)
                except NotBegunError as early:
                    job.raise_if_cancelled()
                    # A child that has run jobs before ended on its own, and this job has no part in it.
                    if child.runs == 1:
                        raise early.error from early.error.__cause__
                finally:
                    self._put_back(child)
        finally:
            with _guard:
                self._jobs.discard(job)

    def _take(self, job: Any) -> Child:
        while True:
            with _guard:
                # Together with the choice of a child, so that `kill` meets either the job here or its child.
                if self._is_killed:
                    job._cancellation.set(WORKER_CLOSES)
                job.raise_if_cancelled()
                if not self._idle:
                    return self._start()
                child = self._idle.pop()
            if child.is_usable():
                return child
            self._retire(child)

    def _start(self) -> Child:
        try:
            child = Child(self._target, self._types, self._kill_after)
        except OSError as error:
            raise SandboxError(f"no child process could be started: {error}") from error
        self._children.add(child)
        return child

    def _put_back(self, child: Child) -> None:
        stays = child.runs != self._max_jobs and child.is_usable()
        with _guard:
            stays = stays and not self._is_closed and len(self._children) <= self._most
            if stays:
                self._idle.append(child)
        if not stays:
            self._retire(child)

    def _retire(self, *children: Child) -> None:
        end(children)
        with _guard:
            self._children.difference_update(children)

    def set_most(self, most: int) -> None:
        """Change how many children there may be; fewer takes effect as jobs end."""
        self._most = most

    def close(self) -> None:
        """End the children that are idle, and each other one when its job ends; return when the idle ones are gone."""
        with _guard:
            self._is_closed = True
            idle, self._idle = self._idle, []
        self._retire(*idle)

    def kill(self) -> None:
        """Kill all children now; jobs that run in one were told to end, and so is every job that comes."""
        with _guard:
            self._is_closed = self._is_killed = True
            jobs, children = list(self._jobs), list(self._children)
        for job in jobs:
            job._cancellation.set(WORKER_CLOSES)
        for child in children:
            child.kill()

    def _forget(self) -> None:
        for child in self._children:
            child.forget()
        self._children, self._idle, self._jobs = set(), [], set()


def _checked(options: Any) -> tuple[int, int | None]:
    if not is_tuple(options) or len(options) != 2:
        raise ConfigurationError(f"sandbox: got {options!r}; allowed is SandboxOptions(kill_after, max_jobs)")
    kill_after, max_jobs = options
    return (
        milliseconds("sandbox.kill_after", kill_after),
        None if max_jobs is None else whole("sandbox.max_jobs", max_jobs, 1),
    )


def _end_all() -> None:
    for pool in list(_pools):
        pool.close()


def _after_fork() -> None:
    _guard.release()
    for pool in list(_pools):
        pool._forget()


# By then the threads that ran jobs have ended.
atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork)
