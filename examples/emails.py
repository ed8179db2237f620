"""A queue and its worker in one program: adding in every way, listeners, processors by name, a rate limit.

python examples/emails.py
"""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from toromq import Backoff, Job, Queue, RateLimit, RateLimitError, Worker

# Without one, a server in ./.toromq starts with this program and ends with it.
REDIS = os.environ.get("TOROMQ_URL", "embedded:.toromq")


class EmailJob(TypedDict):
    user_id: int
    to: str


class EmailResult(TypedDict):
    sent: bool


async def add(emails: Queue[EmailJob, EmailResult]) -> int:
    """Add jobs in every way there is; gives how many."""
    ada: EmailJob = {"user_id": 1, "to": "ada@example.com"}
    await emails.add("welcome", ada)
    await emails.add(
        "welcome", ada, attempts=5, backoff=Backoff.exponential(100), remove_on_complete=True, remove_on_fail=1000
    )
    await emails.add("reminder", ada, delay=timedelta(milliseconds=200))
    await emails.add("reminder", ada, run_at=datetime.now(UTC) + timedelta(milliseconds=300))
    await emails.add_bulk([("welcome", ada), ("welcome", {"user_id": 2, "to": "bob@example.com"}, {"priority": 3})])
    # One of many that say the same within five seconds.
    for _ in range(3):
        await emails.add("digest", ada, deduplication={"id": "digest-1", "ttl": 5000})
    # Far ahead: it is still there when this program has ended.
    later = await emails.add("reminder", ada, run_at=datetime(2035, 7, 3, 10, 30, tzinfo=UTC))
    print(f"a reminder is {await later.get_state()}")
    return 7


# 10 within a second, however many run at once.
worker = Worker[EmailJob, EmailResult](
    "emails", connection=REDIS, concurrency=50, limiter=RateLimit(max=10, duration=1000)
)


@worker.processor("welcome")
async def welcome(job: Job[EmailJob, EmailResult]) -> EmailResult:
    await job.update_progress(10)
    if job.data["to"].startswith("bob"):
        raise ConnectionError("the mailbox is full")
    return {"sent": True}


@worker.processor("reminder")
def remind(job: Job[EmailJob, EmailResult]) -> EmailResult:
    """A plain function runs in a thread, where it may block."""
    return {"sent": True}


limits = iter([True])


@worker.processor("digest")
async def digest(job: Job[EmailJob, EmailResult]) -> EmailResult:
    if next(limits, False):
        # Somebody else's limit: back to where it waited, which is no failure.
        await worker.rate_limit(100)
        raise RateLimitError
    return {"sent": True}


async def main() -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    @worker.on("completed")
    def completed(job: Job[EmailJob, EmailResult], result: EmailResult) -> None:
        ended.put_nowait(job.name)

    @worker.on("failed")
    async def failed(job: Job[EmailJob, EmailResult], error: Exception) -> None:
        print(f"{job.name} of {job.data['to']}: {error}")
        ended.put_nowait(f"{job.name} failed")

    async with Queue[EmailJob, EmailResult]("emails", connection=REDIS) as emails:
        await emails.obliterate(force=True)
        await emails.resume()
        expected = await add(emails)
        async with worker:  # on exit it waits for the jobs in flight
            done = sorted([await ended.get() for _ in range(expected)])
        print(", ".join(done))


if __name__ == "__main__":
    asyncio.run(main())
