"""Fan-out and fan-in: a report that is made when the figures of all regions are there.

python examples/sales_report.py

The regions are children of the report: they run in any order, on any worker, and the report's own job begins when the
last of them has ended. One region may fail without failing the report, which says so.
"""

import asyncio
import os
from typing import Any

from toromq import FlowJob, FlowProducer, Job, JobOptions, QueueEvents, Worker
from toromq.events import WaitingChildrenEvent

REDIS = os.environ.get("TOROMQ_URL", "embedded:.toromq")
SALES = {"us": 120, "eu": 95, "asia": 143}


async def fetch_region(job: Job[Any, Any]) -> int:
    region = job.data["region"]
    if region not in SALES:
        raise LookupError(f"no figures for {region}")
    return SALES[region]


async def write_report(job: Job[Any, Any]) -> dict[str, Any]:
    figures = await job.get_children_values()
    missing = await job.get_ignored_children_failures()
    return {"month": job.data["month"], "total": sum(figures.values()), "missing": sorted(missing.values())}


async def main() -> None:
    may_fail: JobOptions = {"ignore_dependency_on_failure": True}
    regions = [
        FlowJob("fetch-region", queue_name="regions", data={"region": region}, opts=may_fail)
        for region in [*SALES, "atlantis"]
    ]
    async with (
        FlowProducer(connection=REDIS) as flow,
        QueueEvents("reports", connection=REDIS) as events,
        Worker("regions", fetch_region, connection=REDIS, concurrency=4),
        Worker("reports", write_report, connection=REDIS),
    ):

        @events.on("waiting-children")
        def waiting(event: WaitingChildrenEvent) -> None:
            print("the report waits for its regions")

        # All five jobs are added in one step, or none.
        report = FlowJob("sales-report", queue_name="reports", data={"month": "2026-05"}, children=regions)
        tree = await flow.add(report)
        print(await tree.job.wait_until_finished(timeout=30_000))


if __name__ == "__main__":
    asyncio.run(main())
