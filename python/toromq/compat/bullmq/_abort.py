"""Telling a processor that its job shall end, which it is free to look at."""

from __future__ import annotations

import asyncio
from typing import Any


class AbortError(Exception):
    """Raised by `AbortSignal.throw_if_aborted()`."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "The operation was aborted")
        self.reason = reason


class AbortSignal:
    """Whether a job was told to end: by `worker.cancelJob`, by a forced close, or because its lock was lost."""

    def __init__(self) -> None:
        self._aborted = asyncio.Event()
        self._reason: str | None = None
        # In a worker: the real job, which is told of everything but cancelJob.
        self._job: Any = None

    @property
    def aborted(self) -> bool:
        """Whether it shall end."""
        return self._aborted.is_set() or (self._job is not None and bool(self._job.is_cancelled))

    @property
    def reason(self) -> str | None:
        """Why, if that was said."""
        if not self._aborted.is_set() and self._job is not None:
            told: str | None = self._job.cancel_reason
            return told
        return self._reason

    def throw_if_aborted(self) -> None:
        """Raise AbortError if it shall end."""
        if self.aborted:
            raise AbortError(self.reason)

    async def wait(self) -> None:
        """Return once it shall end. For coroutines; they are cancelled where the worker closes or a lock is lost."""
        await self._aborted.wait()


class AbortController:
    """What sets a signal."""

    def __init__(self) -> None:
        self.signal = AbortSignal()

    def abort(self, reason: str | None = None) -> None:
        """Set it; only the first time counts."""
        if not self.signal._aborted.is_set():
            self.signal._reason = reason
            self.signal._aborted.set()
