"""A parent that adds children while it runs: a page is done when all the pages it links to are.

python examples/crawl.py

How many children there will be is not known before the parent has run. It adds them below itself, waits for them
without keeping a slot of its worker, and runs again, with what they returned, when the last one has ended.
"""

import asyncio
import os
from typing import Any

from toromq import Job, Queue, WaitingChildrenError, Worker

REDIS = os.environ.get("TOROMQ_URL", "embedded:.toromq")
LINKS = {"/": ["/docs", "/blog"], "/docs": ["/docs/queues", "/docs/workers"], "/blog": [], "/docs/queues": []}


async def main() -> None:
    async with Queue("pages", connection=REDIS) as pages:

        async def crawl(job: Job[Any, int]) -> int:
            """Gives how many pages there are at and below this one."""
            path = job.data["path"]
            if not job.data.get("linked"):
                # By their ids they are known, should it die here and begin anew.
                links = LINKS.get(path, [])
                await pages.add_bulk([("page", {"path": link}, {"parent": job, "job_id": link}) for link in links])
                await job.update_data({"path": path, "linked": True})
                if await job.move_to_waiting_children():
                    print(f"{path} waits")
                    raise WaitingChildrenError
            below: dict[str, int] = await job.get_children_values()
            return 1 + sum(below.values())

        # One slot is enough: who waits takes none.
        async with Worker("pages", crawl, connection=REDIS, concurrency=1):
            home = await pages.add("page", {"path": "/"})
            print(f"{await home.wait_until_finished(timeout=30_000)} pages")


if __name__ == "__main__":
    asyncio.run(main())
