"""A worker of ours in a process of its own, to be killed by a test.

Run with one argument, a JSON object: ``url``, ``prefix``, ``queue``, ``script`` and ``options``. It prints one JSON
line when it is up, and one whenever a processor starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

# Started by path, so the tests' folder is not importable yet.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.interop.scripted import Gates, run_script
from toromq import Job, Worker


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


async def main(settings: dict[str, Any]) -> None:
    """Works until the process ends."""
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


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
