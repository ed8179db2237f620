"""A worker of ours in a process of its own, to be killed by a test.

Run with one argument, a JSON object: ``face``, ``url``, ``prefix``, ``queue``, ``script`` and ``options``. It prints a
JSON line when it is up, and another whenever a processor starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

# Started by path, so the tests' folder is not importable yet.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.interop.scripted import BlockingGates, Gates, run_blocking, run_script
from toromq import Job, Worker, sync


def _say(**fields: Any) -> None:
    # In one piece: several threads say something.
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def main(settings: dict[str, Any]) -> None:
    """Works with coroutines until the process ends."""
    gates = Gates()

    async def processor(job: Job[Any, Any]) -> Any:
        _say(started=job.id)
        return await run_script(settings["script"], job, gates)

    worker = Worker(
        settings["queue"], processor, connection=settings["url"], prefix=settings["prefix"], **settings["options"]
    )
    async with worker:
        _say(ready=True)
        await asyncio.Event().wait()


def main_blocking(settings: dict[str, Any]) -> None:
    """Works with threads until the process ends."""
    gates = BlockingGates()

    def processor(job: sync.Job[Any, Any]) -> Any:
        _say(started=job.id)
        return run_blocking(settings["script"], job, gates)

    worker = sync.Worker(
        settings["queue"], processor, connection=settings["url"], prefix=settings["prefix"], **settings["options"]
    )
    with worker:
        _say(ready=True)
        threading.Event().wait()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["face"] == "toromq.sync":
        main_blocking(given)
    else:
        asyncio.run(main(given))
