"""The queue through three clients: Node, our async face and our blocking face; one method for each operation.

Methods are named as the model's are and return what the model returns, in plain values. Whatever a client refuses
comes back as ``Refused``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import redis as redis_py

from tests.integration.scripts.commands import Queue
from tests.interop.node_side import _camel as camel
from tests.property.model.facts import Add, Flow, Refused
from tests.support.node_peer import UNDEFINED, NodePeer, NodePeerError

# Far longer than an example takes: a lock is lost only where the test takes it away.
LOCK_MS = 600_000


class Actor(ABC):
    """Somebody who does something to the queue under test."""

    name: ClassVar[str]
    is_node: ClassVar[bool] = False

    @abstractmethod
    async def call(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Runs one operation and returns its answer."""


class Client(Actor):
    """One client of the queue, with a worker whose jobs are fetched and finished by hand."""

    @abstractmethod
    async def counts(self) -> dict[str, int]:
        """How many jobs each state holds."""

    @abstractmethod
    async def states(self, job_ids: list[str]) -> list[str]:
        """The states of jobs."""

    @abstractmethod
    async def ranges(self, state: str, *, asc: bool) -> list[str]:
        """The ids of one state's jobs in the order of a listing."""

    @abstractmethod
    async def start_worker(self) -> Callable[[], list[str]]:
        """Starts a real worker; what it returns tells the ids of the jobs it has run so far."""

    @abstractmethod
    async def close(self) -> None:
        """Closes everything that was opened."""


class NodeClient(Client):
    """The queue through Node BullMQ, inside the peer."""

    name = "node"
    is_node = True

    def __init__(self, peer: NodePeer, queue: str) -> None:
        self._peer = peer
        self._queue_name = queue
        self._handles: list[str] = []
        self._flows = ""

    async def open(self) -> NodeClient:
        """Makes the queue and the worker."""
        self._queue = await self._peer.queue(self._queue_name)
        self._handles.append(self._queue)
        await self._take_a_new_worker()
        return self

    async def _take_a_new_worker(self) -> None:
        self._worker = await self._peer.worker(self._queue_name, None, lockDuration=LOCK_MS)
        self._handles.insert(0, self._worker)

    async def call(self, operation: str, arguments: dict[str, Any]) -> Any:
        try:
            return await getattr(self, f"_{operation}")(**arguments)
        except NodePeerError as error:
            if isinstance(error.code, int):
                return Refused(error.code)
            # Refusals that come without their codes.
            codes = {"failed child": -9, "active jobs": -2}
            for text, code in codes.items():
                if text in error.message:
                    return Refused(code)
            raise

    async def _on_queue(self, method: str, *arguments: Any) -> Any:
        return await self._peer.call(self._queue, method, *arguments)

    async def _on_job(self, job_id: str, method: str, *arguments: Any) -> Any:
        return await self._peer.job(self._queue, job_id, method, *arguments, unknown=True)

    async def _add(self, job: Add) -> str:
        return str((await self._on_queue("add", job.name, job.data, _node_options(job)))["id"])

    async def _add_bulk(self, jobs: list[Add]) -> list[str]:
        entries = [{"name": job.name, "data": job.data, "opts": _node_options(job)} for job in jobs]
        return [str(job["id"]) for job in await self._on_queue("addBulk", entries)]

    async def _add_flow(self, flow: Flow) -> None:
        if not self._flows:
            self._flows = await self._peer.flow_producer()
            self._handles.append(self._flows)
        await self._peer.call(self._flows, "add", self._tree(flow))

    def _tree(self, flow: Flow) -> dict[str, Any]:
        # Node gives the children their parent by itself.
        options = {name: value for name, value in _node_options(flow.job).items() if name != "parent"}
        node = {"name": flow.job.name, "queueName": self._queue_name, "data": flow.job.data, "opts": options}
        return {**node, "children": [self._tree(child) for child in flow.children]} if flow.children else node

    async def _remove_deduplication_key(self, key: str) -> bool:
        return bool(await self._on_queue("removeDeduplicationKey", key))

    async def _fetch(self, token: str) -> str | None:
        job = await self._peer.next_job(self._worker, token, block=False)
        if job is not None:
            return str(job["id"])
        if await self._on_queue("getRateLimitTtl") > 0:
            # It remembers the limit by itself, and asks no more until the window ends, even if the limit goes before.
            await self._take_a_new_worker()
        return None

    async def _complete(self, job_id: str, token: str, value: Any, fetch_next: bool) -> str | None:
        return await self._finish(job_id, token, "moveToCompleted", value, fetchNext=fetch_next)

    async def _fail(self, job_id: str, token: str, reason: str, unrecoverable: bool, fetch_next: bool) -> str | None:
        more = {"unrecoverable": unrecoverable, "fetchNext": fetch_next}
        return await self._finish(job_id, token, "moveToFailed", reason, **more)

    async def _finish(self, job_id: str, token: str, method: str, value: Any, **more: bool) -> str | None:
        run: dict[str, Any] = {"jobId": job_id, "token": token, "method": method, "value": value, **more}
        next_id = await self._peer.command("finish", handle=self._worker, **run)
        return None if next_id is None else str(next_id)

    async def _move_to_delayed(self, job_id: str, token: str, until: int) -> None:
        await self._on_job(job_id, "moveToDelayed", until, token)

    async def _move_to_wait(self, job_id: str, token: str) -> None:
        await self._on_job(job_id, "moveToWait", token)

    async def _move_to_waiting_children(self, job_id: str, token: str) -> bool:
        return bool(await self._on_job(job_id, "moveToWaitingChildren", token))

    async def _remove_child_dependency(self, job_id: str) -> bool:
        return bool(await self._on_job(job_id, "removeChildDependency"))

    async def _remove_unprocessed_children(self, job_id: str) -> None:
        await self._on_job(job_id, "removeUnprocessedChildren")

    async def _promote(self, job_id: str) -> None:
        await self._on_job(job_id, "promote")

    async def _retry(self, job_id: str, state: str, reset_made: bool, reset_started: bool) -> None:
        resets = {"resetAttemptsMade": reset_made, "resetAttemptsStarted": reset_started}
        await self._on_job(job_id, "retry", state, resets)

    async def _change_delay(self, job_id: str, delay: int) -> None:
        await self._on_job(job_id, "changeDelay", delay)

    async def _change_priority(self, job_id: str, priority: int, lifo: bool) -> None:
        await self._on_job(job_id, "changePriority", {"priority": priority, "lifo": lifo})

    async def _update_data(self, job_id: str, data: Any) -> None:
        await self._on_job(job_id, "updateData", data)

    async def _update_progress(self, job_id: str, progress: Any) -> None:
        await self._on_job(job_id, "updateProgress", progress)

    async def _log(self, job_id: str, row: str) -> int:
        return int(await self._on_job(job_id, "log", row))

    async def _clear_logs(self, job_id: str, keep: int) -> None:
        await self._on_job(job_id, "clearLogs", keep or UNDEFINED)

    async def _remove(self, job_id: str, children: bool) -> bool:
        return bool(await self._on_queue("remove", job_id, {"removeChildren": children}))

    async def _retry_jobs(self, state: str, count: int, until: int | None) -> None:
        options = {"state": state, "count": count, "timestamp": UNDEFINED if until is None else until}
        await self._on_queue("retryJobs", options)

    async def _promote_jobs(self, count: int) -> None:
        await self._on_queue("promoteJobs", {"count": count})

    async def _clean(self, state: str, grace: int, limit: int) -> list[str]:
        return sorted(await self._on_queue("clean", grace, limit, state))

    async def _drain(self, delayed: bool) -> None:
        await self._on_queue("drain", delayed)

    async def _pause(self) -> None:
        await self._on_queue("pause")

    async def _resume(self) -> None:
        await self._on_queue("resume")

    async def _obliterate(self, force: bool, count: int) -> None:
        await self._on_queue("obliterate", {"force": force, "count": count})

    async def _set_global_concurrency(self, concurrency: int | None) -> None:
        if concurrency is None:
            await self._on_queue("removeGlobalConcurrency")
        else:
            await self._on_queue("setGlobalConcurrency", concurrency)

    async def _set_global_rate_limit(self, rate: tuple[int, int] | None) -> None:
        if rate is None:
            await self._on_queue("removeGlobalRateLimit")
        else:
            await self._on_queue("setGlobalRateLimit", *rate)

    async def _rate_limit(self, duration: int) -> None:
        await self._on_queue("rateLimit", duration)

    async def _remove_rate_limit_key(self) -> bool:
        return bool(await self._on_queue("removeRateLimitKey"))

    async def _find_stalled(self, allowed: int) -> list[str]:
        since = self._peer.mark()
        await self._peer.command("set", handle=self._worker, property="opts.maxStalledCount", value=allowed)
        await self._peer.call(self._worker, "moveStalledJobsToWait")
        return sorted(said["jobId"] for said in self._peer.events("worker", since=since, name="stalled"))

    async def counts(self) -> dict[str, int]:
        return dict(await self._on_queue("getJobCounts"))

    async def states(self, job_ids: list[str]) -> list[str]:
        return [str(await self._on_queue("getJobState", job_id)) for job_id in job_ids]

    async def ranges(self, state: str, *, asc: bool) -> list[str]:
        return [str(job_id) for job_id in await self._on_queue("getRanges", [state], 0, -1, asc)]

    async def start_worker(self) -> Callable[[], list[str]]:
        handle = await self._peer.worker(self._queue_name, "undefined", concurrency=2, stalledInterval=50)
        self._handles.insert(0, handle)
        return lambda: [item["jobId"] for item in self._peer.events("processor", handle=handle)]

    async def close(self) -> None:
        for handle in self._handles:
            await self._peer.close_handle(handle, force=True)


def _node_options(job: Add) -> dict[str, Any]:
    options = camel(job.options)
    if "deduplication" in options:
        options["deduplication"] = camel(options["deduplication"])
    return options


class OurClient(Client):
    """The queue through ``toromq``."""

    name = "toromq"
    _face: ClassVar[str] = "toromq"

    def __init__(self, redis: redis_py.Redis, url: str, prefix: str, queue: str) -> None:
        self._names = importlib.import_module(self._face)
        self._settings: dict[str, Any] = {"connection": url, "prefix": prefix}
        self._scripts = Queue(redis, prefix, queue)
        self._queue = self._names.Queue(queue, **self._settings)
        self._hand = self._names.Worker(queue, None, lock_duration=LOCK_MS, **self._settings)
        self._flows = self._names.FlowProducer(**self._settings)
        self._held: dict[tuple[str, str], Any] = {}
        self._workers: list[Any] = []
        from toromq.errors import ScriptError, UnrecoverableError

        self._script_error, self._unrecoverable = ScriptError, UnrecoverableError

    async def do(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Waits for an operation of this face."""
        return await operation(*arguments, **options)

    async def call(self, operation: str, arguments: dict[str, Any]) -> Any:
        try:
            return await getattr(self, f"_{operation}")(**arguments)
        except self._script_error as error:
            # Of what has no number on the wire, the one that can happen here: jobs are active.
            return Refused(-2 if error.code < -100 else error.code)

    async def _job(self, job_id: str) -> Any:
        job = await self.do(self._queue.get_job, job_id)
        return job or self._names.Job.from_json(self._queue, {"name": "gone"}, job_id)

    async def _add(self, job: Add) -> str:
        return str((await self.do(self._queue.add, job.name, job.data, **job.options)).id)

    async def _add_bulk(self, jobs: list[Add]) -> list[str]:
        added = await self.do(self._queue.add_bulk, [(job.name, job.data, job.options) for job in jobs])
        return [str(job.id) for job in added]

    async def _add_flow(self, flow: Flow) -> None:
        await self.do(self._flows.add, self._tree(flow, topmost=True))

    def _tree(self, flow: Flow, *, topmost: bool = False) -> Any:
        # The children's parent is the job above them.
        options = {name: value for name, value in flow.job.options.items() if topmost or name != "parent"}
        children = [self._tree(child) for child in flow.children]
        return self._names.FlowJob(
            flow.job.name, queue_name=self._queue.name, data=flow.job.data, children=children, **options
        )

    async def _remove_deduplication_key(self, key: str) -> bool:
        return bool(await self.do(self._queue.remove_deduplication_key, key))

    async def _fetch(self, token: str) -> str | None:
        return self._hold(await self.do(self._hand.get_next_job, token, block=False), token)

    def _hold(self, job: Any, token: str) -> str | None:
        if job is None:
            return None
        self._held[job.id, token] = job
        return str(job.id)

    async def _complete(self, job_id: str, token: str, value: Any, fetch_next: bool) -> str | None:
        job = self._held[job_id, token]
        return self._hold(await self.do(job.move_to_completed, value, token, fetch_next=fetch_next), token)

    async def _fail(self, job_id: str, token: str, reason: str, unrecoverable: bool, fetch_next: bool) -> str | None:
        error = (self._unrecoverable if unrecoverable else RuntimeError)(reason)
        job = self._held[job_id, token]
        return self._hold(await self.do(job.move_to_failed, error, token, fetch_next=fetch_next), token)

    async def _promote(self, job_id: str) -> None:
        await self.do((await self._job(job_id)).promote)

    async def _retry(self, job_id: str, state: str, reset_made: bool, reset_started: bool) -> None:
        job = await self._job(job_id)
        await self.do(job.retry, state, reset_attempts_made=reset_made, reset_attempts_started=reset_started)

    async def _change_delay(self, job_id: str, delay: int) -> None:
        await self.do((await self._job(job_id)).change_delay, delay)

    async def _change_priority(self, job_id: str, priority: int, lifo: bool) -> None:
        await self.do((await self._job(job_id)).change_priority, priority=priority, lifo=lifo)

    async def _update_data(self, job_id: str, data: Any) -> None:
        await self.do((await self._job(job_id)).update_data, data)

    async def _update_progress(self, job_id: str, progress: Any) -> None:
        await self.do((await self._job(job_id)).update_progress, progress)

    async def _log(self, job_id: str, row: str) -> int:
        return int(await self.do((await self._job(job_id)).log, row))

    async def _clear_logs(self, job_id: str, keep: int) -> None:
        await self.do((await self._job(job_id)).clear_logs, keep)

    async def _remove(self, job_id: str, children: bool) -> bool:
        return bool(await self.do(self._queue.remove, job_id, remove_children=children))

    async def _retry_jobs(self, state: str, count: int, until: int | None) -> None:
        await self.do(self._queue.retry_jobs, state=state, count=count, timestamp=until)

    async def _promote_jobs(self, count: int) -> None:
        await self.do(self._queue.promote_jobs, count=count)

    async def _clean(self, state: str, grace: int, limit: int) -> list[str]:
        return sorted(await self.do(self._queue.clean, grace, limit, state))

    async def _drain(self, delayed: bool) -> None:
        await self.do(self._queue.drain, delayed)

    async def _pause(self) -> None:
        await self.do(self._queue.pause)

    async def _resume(self) -> None:
        await self.do(self._queue.resume)

    async def _obliterate(self, force: bool, count: int) -> None:
        await self.do(self._queue.obliterate, force=force, count=count)

    async def _move_to_delayed(self, job_id: str, token: str, until: int) -> None:
        await self.do((await self._job(job_id)).move_to_delayed, until, token)

    async def _move_to_wait(self, job_id: str, token: str) -> None:
        await self.do((await self._job(job_id)).move_to_wait, token)

    async def _move_to_waiting_children(self, job_id: str, token: str) -> bool:
        return bool(await self.do((await self._job(job_id)).move_to_waiting_children, token))

    async def _remove_child_dependency(self, job_id: str) -> bool:
        return bool(await self.do((await self._job(job_id)).remove_child_dependency))

    async def _remove_unprocessed_children(self, job_id: str) -> None:
        await self.do((await self._job(job_id)).remove_unprocessed_children)

    async def _set_global_concurrency(self, concurrency: int | None) -> None:
        if concurrency is None:
            await self.do(self._queue.remove_global_concurrency)
        else:
            await self.do(self._queue.set_global_concurrency, concurrency)

    async def _set_global_rate_limit(self, rate: tuple[int, int] | None) -> None:
        if rate is None:
            await self.do(self._queue.remove_global_rate_limit)
        else:
            await self.do(self._queue.set_global_rate_limit, *rate)

    async def _rate_limit(self, duration: int) -> None:
        await self.do(self._queue.rate_limit, duration)

    async def _remove_rate_limit_key(self) -> bool:
        return bool(await self.do(self._queue.remove_rate_limit_key))

    async def _find_stalled(self, allowed: int) -> list[str]:
        # By hand nobody looks for stalled jobs, so this is the script that workers run.
        limits: dict[str, Any] = {"stalled_interval_ms": 1000, "max_stalled_count": allowed, "limit": 1000}
        reply = self._scripts.call("move_stalled_jobs_to_wait", now_ms=time.time_ns() // 1_000_000, **limits).reply
        return sorted(reply[1])

    async def counts(self) -> dict[str, int]:
        return dict(await self.do(self._queue.get_job_counts))

    async def states(self, job_ids: list[str]) -> list[str]:
        return [str(await self.do(self._queue.get_job_state, job_id)) for job_id in job_ids]

    async def ranges(self, state: str, *, asc: bool) -> list[str]:
        return [str(job_id) for job_id in await self.do(self._queue.get_ranges, [state], 0, -1, asc)]

    async def start_worker(self) -> Callable[[], list[str]]:
        ran: list[str] = []
        worker = self._names.Worker(
            self._queue.name, self._processor(ran), concurrency=2, stalled_interval=50, **self._settings
        )
        self._workers.append(worker)
        await self.do(worker.__enter__ if self._face.endswith("sync") else worker.__aenter__)
        return lambda: list(ran)

    def _processor(self, ran: list[str]) -> Callable[[Any], Any]:
        async def run(job: Any) -> None:
            ran.append(job.id)

        return run

    async def close(self) -> None:
        for worker in self._workers:
            await self.do(worker.close)
        await self.do(self._hand.close, force=True)
        await self.do(self._flows.close)
        await self.do(self._queue.close)


class OurBlockingClient(OurClient):
    """The queue through ``toromq.sync``; every operation blocks a thread of its own."""

    name = "sync"
    _face = "toromq.sync"

    async def do(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(operation, *arguments, **options)

    def _processor(self, ran: list[str]) -> Callable[[Any], Any]:
        return lambda job: ran.append(job.id)


class Redis(Actor):
    """What happens by itself, by a plain client."""

    name = "redis"

    def __init__(self, redis: redis_py.Redis, base: str) -> None:
        self._redis = redis
        self._base = base

    async def call(self, operation: str, arguments: dict[str, Any]) -> Any:
        assert operation == "lose_lock"
        self._redis.delete(f"{self._base}{arguments['job_id']}:lock")


async def closed(clients: list[Client]) -> None:
    """Closes clients, all of them whatever one of them says."""
    async with contextlib.AsyncExitStack() as stack:
        for client in clients:
            stack.push_async_callback(client.close)
