"""Workers of ours in a process of their own, to be killed by a test.

Run with one argument, a JSON object: ``face``, ``workers`` (how many), ``url``, ``prefix``, ``queue``, ``script`` and
``options``. It prints a JSON line when they are up, and another whenever a processor starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

# Started by path, so the tests' folder is not importable yet.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.interop.scripted import BlockingGates, Gates, run_blocking, run_script
from toromq import Job, RateLimit, Worker, sync


def _say(**fields: Any) -> None:
    # In one piece: several threads say something.
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _workers(settings: dict[str, Any], kind: Any, processor: Any) -> list[Any]:
    options = {"connection": settings["url"], "prefix": settings["prefix"], **settings["options"]}
    if "limiter" in options:
        options["limiter"] = RateLimit(**options["limiter"])
    return [kind(settings["queue"], processor, **options) for _ in range(settings["workers"])]


async def main(settings: dict[str, Any]) -> None:
    """Works with coroutines until the process ends."""
    gates = Gates()

    async def processor(job: Job[Any, Any]) -> Any:
        _say(started=job.id)
        return await run_script(settings["script"], job, gates)

    async with contextlib.AsyncExitStack() as running:
        for worker in _workers(settings, Worker, processor):
            await running.enter_async_context(worker)
        _say(ready=True)
        await asyncio.Event().wait()


def main_blocking(settings: dict[str, Any]) -> None:
    """Works with threads until the process ends."""
    gates = BlockingGates()

    def processor(job: sync.Job[Any, Any]) -> Any:
        _say(started=job.id)
        return run_blocking(settings["script"], job, gates)

    with contextlib.ExitStack() as running:
        for worker in _workers(settings, sync.Worker, processor):
            running.enter_context(worker)
        _say(ready=True)
        threading.Event().wait()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["face"] == "toromq.sync":
        main_blocking(given)
    else:
        asyncio.run(main(given))
