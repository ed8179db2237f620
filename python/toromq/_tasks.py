"""Running coroutines: one task runs one job after the other as long as none of them waits.

A task for each job costs more than all else that Python does for it. So a task takes the next job when the last one
ended without waiting; as soon as a job does wait, another task goes on with the rest. One that finds nothing to do
stays, and begins the next job in the very turn of the loop that brings it. A job that changed a context variable, or
was cancelled, ends its task, so that the next job starts as fresh as if it had one of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from toromq._bridge import Answer
from toromq._job_fields import Run, Stored

# How long jobs that never wait may keep the event loop from everything else.
_TURN = 0.005
# How long a job that was cancelled may go on before nobody waits for it any more.
LAST_TURN = 5


class _JobTask(asyncio.Task[None]):
    """A task that knows whether it was cancelled from outside or asked for it itself, which is a failure of its job."""

    from_outside = False

    def cancel(self, msg: Any = None) -> bool:
        self.from_outside |= asyncio.current_task(self.get_loop()) is not self
        return super().cancel(msg)


class TaskRunner:
    """Runs `run(stored, (id, token))` for each job, which raises only CancelledError and what ends the process."""

    def __init__(self, run: Callable[[Stored, Run], Awaitable[None]], hand_back: Callable[[Run], None]) -> None:
        """For the running event loop; `hand_back` gets the runs that were withdrawn before they began."""
        self._run_job = run
        self._hand_back = hand_back
        self._waiting: deque[Stored] = deque()
        self._running: dict[Run, _JobTask] = {}
        self._tasks: set[_JobTask] = set()
        # The one that has not begun, where there is one.
        self._next: _JobTask | None = None
        # The one that stays for more, and what it awaits.
        self._staying: tuple[_JobTask, Answer] | None = None
        self._is_ending = False
        self._is_over = False
        self._context = contextvars.copy_context()

    def put(self, jobs: list[Stored]) -> None:
        """Run these as well."""
        self._waiting.extend(jobs)
        if self._is_ending:
            self.hand_back_waiting()
        self._start()

    def _start(self) -> None:
        if not self._waiting:
            return
        if self._next is not None:
            if not self._next.done():
                return
            # Cancelled before its first step.
            self._tasks.discard(self._next)
        if self._staying is not None:
            (self._next, more), self._staying = self._staying, None
            more.give(None)
            return
        self._next = _JobTask(self._run(), loop=asyncio.get_running_loop(), context=self._context.copy())
        # The loop alone holds a task weakly.
        self._tasks.add(self._next)

    async def _run(self) -> None:
        task, self._next = self._next, None
        assert task is not None
        waiting, running = self._waiting, self._running
        fresh = contextvars.copy_context()
        began = time.monotonic()
        try:
            while True:
                if not waiting:
                    if not await self._more(task):
                        break
                    began = time.monotonic()
                stored = waiting.popleft()
                # It goes on with the rest if this job waits, and finds nothing to do if it does not.
                if waiting and self._next is None:
                    self._start()
                run = (stored[0], stored[1])
                running[run] = task
                try:
                    await self._run_job(stored, run)
                finally:
                    del running[run]
                if task.cancelling() or contextvars.copy_context() != fresh or time.monotonic() - began > _TURN:
                    break
        finally:
            # Here, for to be called when it is done would cost a turn of the loop for each job that waits.
            self._tasks.discard(task)
        self._start()

    async def _more(self, task: _JobTask) -> bool:
        """Stay until there are jobs, unless another task does; whether there are."""
        if self._staying is not None or self._is_ending or self._is_over:
            return False
        more = Answer()
        staying = self._staying = (task, more)
        try:
            await more
        except asyncio.CancelledError:
            # By somebody who cancels whatever tasks there are.
            if self._staying is staying:
                self._staying = None
            asyncio.get_running_loop().call_soon(self._start)
            raise
        if self._next is task:
            self._next = None
        return bool(self._waiting)

    def end(self) -> None:
        """No more jobs will come: let the task go that stays for them."""
        self._is_over = True
        if self._staying is not None:
            (_, more), self._staying = self._staying, None
            more.give(None)

    def cancel(self, run: Run, reason: str) -> None:
        """Cancel a job, or withdraw it if it has not begun."""
        running = self._running.get(run)
        if running is not None:
            running.cancel(reason)
            return
        for stored in self._waiting:
            if stored[:2] == run:
                self._waiting.remove(stored)
                self._hand_back(run)
                return

    def has_waiting(self) -> bool:
        """Whether there are jobs that have not begun."""
        return bool(self._waiting)

    def hand_back_waiting(self) -> None:
        """Begin no more jobs; those that have not begun are handed back, the one that is next to run last."""
        self._is_ending = True
        while self._waiting:
            stored = self._waiting.pop()
            self._hand_back((stored[0], stored[1]))

    async def cancel_all(self, reason: str) -> None:
        """Cancel all jobs and wait for them, five seconds at most; those that have not begun are handed back."""
        self.hand_back_waiting()
        tasks = set(self._running.values())
        for task in tasks:
            task.cancel(reason)
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_TURN)

    @staticmethod
    def was_cancelled() -> bool:
        """Whether the job that asks was cancelled, and not by itself."""
        task = asyncio.current_task()
        return isinstance(task, _JobTask) and task.from_outside and task.cancelling() > 0

    def is_inside(self) -> bool:
        """Whether the caller is one of the jobs."""
        return asyncio.current_task() in self._tasks
