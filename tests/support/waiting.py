"""A queue of one face whose jobs are waited for and ended by hand, and what the server sees of that."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

import toromq
from tests.support.eventually import aeventually
from toromq import Job, Queue, Worker

NAME = "mail"


class Desk:
    """One queue in one face; blocking calls run in threads of its own.

    Args:
        face: ``toromq`` or ``toromq.sync``.
        url: The server.
        prefix: The prefix of the keys.
        client: A client of that server, that sees it directly.
    """

    def __init__(self, face: Any, url: str, prefix: str, client: redis.Redis) -> None:
        self.face = face
        self.redis = client
        self.options: dict[str, Any] = {"connection": toromq.Connection(url), "prefix": prefix}
        self.queue: Any = face.Queue(NAME, **self.options)
        # What ends jobs must not wait behind what is waited for, nor be waited on itself.
        self.jobs: Queue[Any, Any] = Queue(NAME, connection=self.options["connection"], prefix=prefix)
        self._hand: Worker[Any, Any] = Worker(NAME, connection=self.options["connection"], prefix=prefix)
        self._threads = ThreadPoolExecutor(200)
        self._reader_name = f"{prefix}:{b64encode(NAME.encode()).decode()}:qe"
        self.base = f"{prefix}:{NAME}:"

    async def call(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls something of the face."""
        if self.face is toromq:
            return await operation(*arguments, **options)
        call = asyncio.get_running_loop().run_in_executor(self._threads, lambda: operation(*arguments, **options))
        return await call

    def wait(self, job: Job[Any, Any] | str, timeout: Any = None) -> asyncio.Task[Any]:
        """Begins to wait for a job."""
        job_id = job if isinstance(job, str) else job.id
        return asyncio.ensure_future(self.call(self.queue.wait_until_finished, job_id, timeout))

    async def waiting(self, job: Job[Any, Any] | str, timeout: Any = None) -> asyncio.Task[Any]:
        """Begins to wait, and returns when the server was asked for the job: now only events can tell of its end."""
        before = self._questions()
        task = self.wait(job, timeout)
        await aeventually(lambda: task.done() or self._questions() > before, message="the question for a job")
        return task

    def _questions(self) -> int:
        # The command that only the question whether a job has ended uses.
        return int(self.redis.info("commandstats").get("cmdstat_zscore", {}).get("calls", 0))

    def readers(self) -> list[dict[str, str]]:
        """The connections that read the queue's events."""
        clients = self.redis.client_list()
        return [client for client in clients if client["name"] == self._reader_name]

    def reads(self) -> bool:
        """Whether there is one reader, and it waits for events."""
        return [client["cmd"] for client in self.readers()] == ["xread"]

    async def left_alone(self) -> None:
        """Returns when no reader is left."""
        await aeventually(lambda: not self.readers(), 20, "the reader is gone")

    async def take(self) -> Job[Any, Any]:
        """Makes the next job active."""
        job = await self._hand.get_next_job("t:1", block=False)
        assert job is not None
        return job

    async def complete(self, value: Any) -> str:
        """Runs the next job, which returns this; gives its id."""
        job = await self.take()
        await job.move_to_completed(value, "t:1", False)
        return job.id

    async def fail(self, reason: str) -> str:
        """Runs the next job, which raises; gives its id."""
        job = await self.take()
        await job.move_to_failed(ValueError(reason), "t:1", False)
        return job.id

    def asked(self) -> int:
        """How many scripts the server has run so far."""
        return int(self.redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    async def close(self) -> None:
        """Closes everything; waits that still go on end with an error."""
        await self.call(self.queue.close)
        await self.jobs.close()
        await self._hand.close()
        self._threads.shutdown()
