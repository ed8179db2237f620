"""Names of keys and of reply codes, for programs that look at Redis themselves."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import toromq


class Keys(dict[str, str]):
    """The full names of a queue's keys, each made when it is first asked for."""

    def __init__(self, to_key: Callable[[str], str]) -> None:
        super().__init__()
        self._to_key = to_key

    def __missing__(self, name: str) -> str:
        self[name] = key = self._to_key(name)
        return key


class QueueKeys:
    """The names of the keys of any queue with this prefix."""

    def __init__(self, prefix: str = "bull") -> None:
        self.prefix = prefix

    def _queue(self, name: str) -> toromq.Queue:
        return toromq.Queue(name, prefix=self.prefix)

    def getKeys(self, name: str) -> dict[str, str]:
        """All of them, by what they hold."""
        return Keys(self._queue(name).to_key)

    def toKey(self, name: str, name_type: str) -> str:
        """One of them."""
        return self._queue(name).to_key(name_type)

    def getQueueQualifiedName(self, name: str) -> str:
        """What all of them begin with."""
        return self._queue(name).qualified_name


class ErrorCode(Enum):
    """The `code` of an error with which Redis refused an operation."""

    JobNotExist = -1
    JobLockNotExist = -2
    JobNotInState = -3
    JobPendingDependencies = -4
    ParentJobNotExist = -5
    JobLockMismatch = -6
    ParentJobCannotBeReplaced = -7
    JobHasFailedChildren = -9
    SchedulerJobIdCollision = -10
    SchedulerJobSlotsBusy = -11
