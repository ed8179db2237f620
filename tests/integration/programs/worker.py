"""A worker in a process of its own, run until SIGTERM. It prints `ready`, and `start ID` and `end ID` for every job.

Arguments: a processor of this file, URL, prefix, queue, and the worker's options as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import toromq

KIND, URL, PREFIX, QUEUE, OPTIONS = sys.argv[1:]


def _say(*words: Any) -> None:
    # One write for a line, so that the lines of threads do not mix.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def hold_interpreter(job: Any) -> None:
    # PyDLL, unlike CDLL, keeps the interpreter's lock during the call: no other thread of Python runs.
    ctypes.PyDLL(None).usleep(int(job.data["seconds"] * 1e6))


async def hold_interpreter_async(job: Any) -> None:
    hold_interpreter(job)


async def block_loop(job: Any) -> None:
    time.sleep(job.data["seconds"])


async def forever(job: Any) -> None:
    await asyncio.Event().wait()


def forever_in_a_thread(job: Any) -> None:
    time.sleep(3600)


async def nap(job: Any) -> None:
    await asyncio.sleep(0.005)


def _told(processor: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(processor)
    def run(job: Any) -> None:
        _say("start", job.id)
        processor(job)
        _say("end", job.id)

    return run


def _told_async(processor: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Any]:
    @functools.wraps(processor)
    async def run(job: Any) -> None:
        _say("start", job.id)
        await processor(job)
        _say("end", job.id)

    return run


if __name__ == "__main__":
    chosen = globals()[KIND]
    told = _told_async(chosen) if asyncio.iscoroutinefunction(chosen) else _told(chosen)
    worker: toromq.Worker[Any, Any] = toromq.Worker(QUEUE, told, connection=URL, prefix=PREFIX, **json.loads(OPTIONS))
    worker.on("ready", lambda: _say("ready"))
    toromq.run(worker)
