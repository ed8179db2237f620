"""Running coroutines: one task runs one job after the other as long as none of them waits.

A task for each job costs more than all else that Python does for it. So a task takes the next job when the last one
ended without waiting; as soon as a job does wait, another task goes on with the rest. A job that changed a context
variable, or was cancelled, ends its task, so that the next job starts as fresh as if it had one of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable

from toromq._job_fields import Stored

# How long jobs that never wait may keep the event loop from everything else.
_TURN = 0.005
# How long a job that was cancelled may go on before nobody waits for it any more.
_LAST_TURN = 5


class TaskRunner:
    """Runs `run(stored)` for each job, which must raise nothing but CancelledError and what ends the process."""

    def __init__(
        self, run: Callable[[Stored], Awaitable[None]], hand_back: Callable[[str], None]
    ) -> None:
        """For the running event loop; `hand_back` gets the ids of jobs that were withdrawn before they began."""
        self._run_job = run
        self._hand_back = hand_back
        self._waiting: deque[Stored] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled: set[str] = set()
        self._starting = False
        self._context = contextvars.copy_context()

    def put(self, jobs: list[Stored]) -> None:
        """Run these as well."""
        self._waiting.extend(jobs)
        self._start()

    def _start(self) -> None:
        if self._waiting and not self._starting:
            self._starting = True
            task = asyncio.get_running_loop().create_task(self._run(), context=self._context.copy())
            # The loop alone holds a task weakly.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        self._starting = False
        task = asyncio.current_task()
        assert task is not None
        fresh = contextvars.copy_context()
        began = time.monotonic()
        while self._waiting:
            stored = self._waiting.popleft()
            # It goes on with the rest if this job waits, and finds nothing to do if it does not.
            self._start()
            self._running[stored[0]] = task
            try:
                await self._run_job(stored)
            finally:
                del self._running[stored[0]]
                self._cancelled.discard(stored[0])
            if task.cancelling() or contextvars.copy_context() != fresh or time.monotonic() - began > _TURN:
                break
        self._start()

    def cancel(self, job_id: str, reason: str) -> None:
        """Cancel a job, or withdraw it if it has not begun."""
        running = self._running.get(job_id)
        if running is not None:
            self._cancelled.add(job_id)
            running.cancel(reason)
            return
        for stored in self._waiting:
            if stored[0] == job_id:
                self._waiting.remove(stored)
                self._hand_back(job_id)
                return

    async def cancel_all(self, reason: str) -> None:
        """Cancel all jobs and wait for them, five seconds at most; those that have not begun are handed back."""
        while self._waiting:
            self._hand_back(self._waiting.pop()[0])
        tasks = set(self._running.values())
        self._cancelled.update(self._running)
        for task in tasks:
            task.cancel(reason)
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_TURN)

    def was_cancelled(self, job_id: str) -> bool:
        """Whether it was cancelled from here, and not by itself."""
        return job_id in self._cancelled

    def is_inside(self) -> bool:
        """Whether the caller is one of the jobs."""
        return asyncio.current_task() in self._tasks
