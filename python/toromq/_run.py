"""Running workers as a program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

from toromq import sync
from toromq.worker import Worker


def run(*workers: Worker[Any, Any] | sync.Worker[Any, Any]) -> None:
    """Run workers of either face until SIGINT or SIGTERM, then let the jobs in flight end. A second signal forces.

    Returns when all workers have ended.

    Raises:
        ToroError: a worker could not be started; the others are closed.
    """
    asyncio.run(_serve(workers))


async def _serve(workers: tuple[Worker[Any, Any] | sync.Worker[Any, Any], ...]) -> None:
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        force = bool(stopping)
        stopping.extend(loop.create_task(_close(worker, force)) for worker in workers)

    for number in (signal.SIGINT, signal.SIGTERM):
        # Loops without signal handlers (Windows) leave Ctrl-C to asyncio.run, which cancels us.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)
    running = [loop.create_task(_run(worker)) for worker in workers]
    try:
        await asyncio.gather(*running)
    finally:
        await asyncio.gather(*(_close(worker, True) for worker in workers))


async def _run(worker: Worker[Any, Any] | sync.Worker[Any, Any]) -> None:
    if isinstance(worker, sync.Worker):
        await asyncio.to_thread(worker.run)
    else:
        await worker.run()


async def _close(worker: Worker[Any, Any] | sync.Worker[Any, Any], force: bool) -> None:
    if isinstance(worker, sync.Worker):
        await asyncio.to_thread(worker.close, force)
    else:
        await worker.close(force)
