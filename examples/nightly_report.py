"""Jobs by the clock: a report every night, and a heartbeat.

python examples/nightly_report.py

Job schedulers are stored in Redis, so it does not matter which program makes them, or how often: the same one made
again changes nothing. One job is made for each time, whichever of the queue's workers are there.
"""

import asyncio
import os
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from toromq import Job, Queue, Worker

REDIS = os.environ.get("TOROMQ_URL", "embedded:.toromq")
BEATS = 3


async def main() -> None:
    beats: asyncio.Queue[int] = asyncio.Queue()

    async def work(job: Job[Any, str]) -> str:
        if job.name == "heartbeat":
            beats.put_nowait(job.timestamp)
            return "alive"
        return f"the {job.data['kind']} report is made"

    async with Queue[Any, str]("clock", connection=REDIS) as clock, Worker("clock", work, connection=REDIS):
        # At 3:15 in Madrid, also when its clocks change; and now, so that there is something to see.
        report = await clock.upsert_job_scheduler(
            "nightly-report", pattern="0 15 3 * * *", tz="Europe/Madrid", name="report", data={"kind": "daily"},
            opts={"attempts": 5, "backoff": 3000}, immediately=True,
        )  # fmt: skip
        assert report is not None
        print(await report.wait_until_finished(timeout=30_000))
        scheduler = await clock.get_job_scheduler("nightly-report")
        assert scheduler is not None
        assert scheduler.next is not None
        due = datetime.fromtimestamp(scheduler.next / 1000, ZoneInfo("Europe/Madrid"))
        print(f"the next one at {due:%H:%M} in Madrid")

        await clock.upsert_job_scheduler("heartbeat", every=timedelta(milliseconds=100), limit=BEATS)
        for _ in range(BEATS):
            await beats.get()
        print(f"{BEATS} heartbeats")


if __name__ == "__main__":
    asyncio.run(main())
