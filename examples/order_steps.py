"""A job in steps: each is stored when it is done, so that nothing is done twice, whatever dies in between.

python examples/order_steps.py

Between two steps the job may wait for days: it is moved to delayed, keeps no worker and spends no attempt.
"""

import asyncio
import os
from typing import Any

from toromq import DelayedError, Job, Queue, Worker

REDIS = os.environ.get("TOROMQ_URL", "embedded:.toromq")
crashes = iter([True])


async def process(job: Job[Any, str]) -> str:
    while True:
        step = job.data["step"]
        print(f"{step} ({job.attempts_made} failed attempts)")
        if step == "reserve":
            await job.update_data({**job.data, "step": "charge"})
        elif step == "charge":
            if next(crashes, False):
                raise ConnectionError("the bank hung up")  # the next attempt begins with this step
            await job.update_data({**job.data, "step": "ship"})
            # The money takes a while.
            raise DelayedError(delay=200)
        else:
            return f"order {job.data['order']} is on its way"


async def main() -> None:
    async with Queue("orders", connection=REDIS) as orders, Worker("orders", process, connection=REDIS):
        job = await orders.add("order", {"order": 7, "step": "reserve"}, attempts=3, backoff=100)
        print(await job.wait_until_finished(timeout=30_000))


if __name__ == "__main__":
    asyncio.run(main())
