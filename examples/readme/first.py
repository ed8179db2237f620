# The first sample of the README.
import asyncio

from toromq import Job, Queue, Worker

async def send(job: Job) -> dict:
    await job.update_progress(50)
    return {"sent_to": job.data["to"]}

async def main() -> None:
    async with Queue("emails", connection="embedded:.toromq") as queue:
        await queue.add("welcome", {"to": "user@example.com"}, attempts=3, backoff=1000)
        done = asyncio.Event()
        worker = Worker("emails", send, connection="embedded:.toromq", concurrency=10)

        @worker.on("completed")
        def completed(job: Job, result: dict) -> None:
            print(job.id, result)
            done.set()

        async with worker:
            await done.wait()

asyncio.run(main())
