"""Running workers as a program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from toromq import sync
from toromq.errors import ToroError
from toromq.worker import Worker


def run(*workers: Worker[Any, Any] | sync.Worker[Any, Any]) -> None:
    """Run workers of either face until SIGINT or SIGTERM, then let the jobs in flight end. A second signal forces.

    Returns when all workers have ended.

    Raises:
        ToroError: a worker could not be started; the others are closed. Or it was called outside the main thread, which
            alone handles signals, or by a coroutine: nothing was started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ToroError("run() handles signals, which only the main thread can; in another one use worker.run()")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ToroError("run() has an event loop of its own; in a coroutine use `async with worker`")
    asyncio.run(_serve(workers))


async def _serve(workers: tuple[Worker[Any, Any] | sync.Worker[Any, Any], ...]) -> None:
    loop = asyncio.get_running_loop()
    # Blocking workers keep a thread each, one to be closed and one to be forced; asyncio's own pool may have fewer.
    threads = ThreadPoolExecutor(max(1, 3 * len(workers)), "toromq-run")
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        force = bool(stopping)
        stopping.extend(loop.create_task(_close(worker, force, threads)) for worker in workers)

    for number in (signal.SIGINT, signal.SIGTERM):
        # Loops without signal handlers (Windows) leave Ctrl-C to asyncio.run, which cancels us.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)
    running = [loop.create_task(_run(worker, threads)) for worker in workers]
    try:
        await asyncio.gather(*running)
    finally:
        await asyncio.gather(*(_close(worker, True, threads) for worker in workers))
        # What the others have to say by now is that they were closed.
        await asyncio.gather(*running, return_exceptions=True)
        threads.shutdown(wait=False)


async def _run(worker: Worker[Any, Any] | sync.Worker[Any, Any], threads: ThreadPoolExecutor) -> None:
    if isinstance(worker, sync.Worker):
        await asyncio.get_running_loop().run_in_executor(threads, worker.run)
    else:
        await worker.run()


async def _close(
    worker: Worker[Any, Any] | sync.Worker[Any, Any], force: bool, threads: ThreadPoolExecutor
) -> None:
    if isinstance(worker, sync.Worker):
        await asyncio.get_running_loop().run_in_executor(threads, worker.close, force)
    else:
        await worker.close(force)
