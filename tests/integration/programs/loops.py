"""A worker whose event loop runs no more. Arguments: a function of this file, URL, prefix.

It says when the loop has stopped, and goes on to the end of the program at the next line of its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from typing import Any

from toromq import Job, Worker

HOW, URL, PREFIX = sys.argv[1:]
# So that nothing is collected before the interpreter ends.
kept: list[Any] = []


async def _run(job: Job[Any, Any]) -> None:
    print("ran", job.id, flush=True)


async def _start() -> None:
    worker = await Worker("q", _run, connection=URL, prefix=PREFIX, name="w").__aenter__()
    kept.append(worker)
    await worker.wait_until_ready()


def _wait() -> None:
    print("stopped", flush=True)
    sys.stdin.readline()


def stopped() -> None:
    """It could be started again."""
    kept.append(loop := asyncio.new_event_loop())
    loop.run_until_complete(_start())
    _wait()


def closed() -> None:
    """It is closed, and nobody has told the worker."""
    kept.append(loop := asyncio.new_event_loop())
    loop.run_until_complete(_start())
    loop.close()
    _wait()


def forgotten() -> None:
    """The same, and nobody keeps either of them."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_start())
    loop.close()
    del loop
    kept.clear()
    gc.collect()
    _wait()


def ended() -> None:
    """It ends with the program's coroutine."""
    asyncio.run(_start())
    _wait()


def busy() -> None:
    """It is busy to the end, which comes out of the middle of a job."""

    async def main() -> None:
        await _start()
        _wait()
        sys.exit(0)

    asyncio.run(main())


with contextlib.suppress(BrokenPipeError):
    globals()[HOW]()
