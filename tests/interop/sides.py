"""The two implementations behind one face, so that one body of tests runs in every direction.

Our package is imported where it is used, so that the Node side can be tested without it.

A :class:`Side` is a queue of one implementation, a :class:`SideWorker` one of its workers. Options are spelled the
Python way on both; scripts are the processors that ``peer/peer.mjs`` and ``scripted.py`` both know.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.interop.scripted import Gates, Script, run_script
from tests.support.eventually import aeventually
from tests.support.node_peer import UNDEFINED, NodePeer, NodePeerError

if TYPE_CHECKING:
    from toromq import Job, Queue, Worker

MISSING: Final = object()
"""Data that the caller did not give at all, as opposed to None."""


class RefusedError(Exception):
    """An implementation turned down what it was asked to do.

    Attributes:
        code: The negative reply code of the wire, if there was one.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Run:
    """One start of a processor, as the processor saw it."""

    job_id: str
    name: str
    data: Any
    attempts_made: int
    attempts_started: int


@dataclass(frozen=True)
class Outcome:
    """Something a worker said about a job: the kind of event, the job, and the result or the error's message."""

    kind: str
    job_id: str | None
    value: Any = None


@dataclass(frozen=True)
class JobView:
    """What an implementation's job object says; both must see the same in the same keys."""

    name: str
    data: Any
    timestamp: int
    delay: float
    priority: int
    progress: Any
    returnvalue: Any
    failed_reason: str | None
    stacktrace: tuple[str, ...]
    attempts_made: int
    attempts_started: int
    stalled_counter: int
    processed_on: int | None
    finished_on: int | None
    state: str


class SideWorker(ABC):
    """A running worker."""

    @abstractmethod
    def runs(self, job_id: str | None = None) -> list[Run]:
        """All processor starts so far, of one job or of all."""

    @abstractmethod
    def outcomes(self, *kinds: str, job_id: str | None = None) -> list[Outcome]:
        """Everything said so far, filtered by kinds and job."""

    @abstractmethod
    async def open(self, job_id: str, value: Any = None, *, error: str | None = None) -> None:
        """Lets the job's ``gate`` processor return the value, or fail."""

    @abstractmethod
    async def close(self, *, force: bool = False) -> None:
        """Stops the worker; waits for its jobs unless forced."""

    async def started(self, job_id: str | None = None, count: int = 1, timeout: float = 20) -> list[Run]:
        """Waits until processors have started ``count`` times."""

        def enough() -> bool:
            assert len(self.runs(job_id)) >= count, repr(self)
            return True

        await aeventually(enough, timeout, f"{count} starts of {job_id or 'any job'}")
        return self.runs(job_id)

    async def said(self, *kinds: str, job_id: str | None = None, count: int = 1, timeout: float = 20) -> list[Outcome]:
        """Waits until the worker has said something of one of these kinds ``count`` times."""

        def enough() -> bool:
            assert len(self.outcomes(*kinds, job_id=job_id)) >= count, repr(self)
            return True

        await aeventually(enough, timeout, f"{count} times {' or '.join(kinds)} of {job_id or 'any job'}")
        return self.outcomes(*kinds, job_id=job_id)


class DoomedWorker(ABC):
    """A worker in a process of its own."""

    @abstractmethod
    async def started(self, job_id: str) -> None:
        """Waits until the processor has started on a job."""

    @abstractmethod
    def kill(self) -> None:
        """Ends the process as a crash would; nothing is released."""


class Side(ABC):
    """One implementation's view of the queue under test."""

    implementation: str

    def __repr__(self) -> str:
        return f"<{self.implementation}>"

    @abstractmethod
    async def add(self, name: str, data: Any = MISSING, /, **options: Any) -> str:
        """Adds a job and returns its id."""

    @abstractmethod
    async def add_bulk(self, jobs: list[tuple[str, Any, dict[str, Any]]]) -> list[str]:
        """Adds jobs in one call and returns their ids in order."""

    @abstractmethod
    async def view(self, job_id: str) -> JobView | None:
        """Reads a job."""

    @abstractmethod
    async def counts(self) -> dict[str, int]:
        """Job counts of all states."""

    @abstractmethod
    async def ids(self, state: str) -> list[str]:
        """The ids of one state, oldest first."""

    @abstractmethod
    async def logs(self, job_id: str, start: int = 0, end: int = -1, *, asc: bool = True) -> tuple[list[str], int]:
        """Log rows and their total number."""

    @abstractmethod
    async def add_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        """Adds a log row through the queue."""

    @abstractmethod
    async def update_progress(self, job_id: str, value: Any) -> None:
        """Sets a job's progress through the queue."""

    @abstractmethod
    async def worker(
        self, script: Script | str, *, backoff_delays: list[int] | None = None, **options: Any
    ) -> SideWorker:
        """Starts a worker with a scripted processor."""

    @abstractmethod
    async def doomed_worker(self, script: Script | str, **options: Any) -> DoomedWorker:
        """Starts a worker in a process of its own, to be killed."""

    @abstractmethod
    async def fetch_by_hand(self, token: str) -> str:
        """Makes a job active through a worker without processor, and returns its id."""

    @abstractmethod
    async def finish_by_hand(self, job_id: str, token: str, *, error: str | None = None, value: Any = None) -> None:
        """Finishes a job that :meth:`fetch_by_hand` gave, under any token.

        Raises:
            RefusedError: The queue turned the finish down.
        """

    @abstractmethod
    async def close(self) -> None:
        """Closes everything this side opened, by force."""


def _script(script: Script | str) -> Script:
    return {"name": script} if isinstance(script, str) else script


# -- Node --------------------------------------------------------------------------------------------------------------


class NodeWorker(SideWorker):
    """A worker inside the Node peer."""

    def __init__(self, peer: NodePeer, handle: str) -> None:
        self._peer = peer
        self.handle = handle

    def __repr__(self) -> str:
        return f"<node worker {self.handle}: {self._peer.events('worker', handle=self.handle)[-8:]}>"

    def runs(self, job_id: str | None = None) -> list[Run]:
        return [
            Run(item["jobId"], item["name"], item["data"], item["attemptsMade"], item["attemptsStarted"])
            for item in self._peer.events("processor", handle=self.handle)
            if job_id in (None, item["jobId"])
        ]

    def outcomes(self, *kinds: str, job_id: str | None = None) -> list[Outcome]:
        return [
            Outcome(item["name"], item.get("jobId"), _value_of(item))
            for item in self._peer.events("worker", handle=self.handle)
            if item["name"] in kinds and job_id in (None, item.get("jobId"))
        ]

    async def open(self, job_id: str, value: Any = None, *, error: str | None = None) -> None:
        await self._peer.open(self.handle, job_id, value, error=error)

    async def close(self, *, force: bool = False) -> None:
        await self._peer.close_handle(self.handle, force=force)


def _value_of(item: dict[str, Any]) -> Any:
    return item["error"]["message"] if "error" in item else item.get("result", item.get("progress"))


class DoomedNodeWorker(DoomedWorker):
    """A Node process with one worker in it."""

    def __init__(self, peer: NodePeer) -> None:
        self._peer = peer

    async def started(self, job_id: str) -> None:
        await self._peer.wait_event("processor", jobId=job_id)

    def kill(self) -> None:
        self._peer.kill()


class NodeSide(Side):
    """The queue through Node BullMQ."""

    implementation = "node"

    def __init__(self, peer: NodePeer, redis: str, prefix: str, name: str) -> None:
        self.peer = peer
        self._redis = redis
        self._prefix = prefix
        self._name = name
        self.handle = ""
        self._doomed: list[DoomedNodeWorker] = []
        self._by_hand = ""

    async def start(self) -> NodeSide:
        """Creates the queue object."""
        self.handle = await self.peer.queue(self._name)
        return self

    async def add(self, name: str, data: Any = MISSING, /, **options: Any) -> str:
        given = UNDEFINED if data is MISSING else data
        try:
            job = await self.peer.call(self.handle, "add", name, given, _camel(options))
        except NodePeerError as error:
            raise RefusedError(str(error), _code(error)) from error
        return str(job["id"])

    async def add_bulk(self, jobs: list[tuple[str, Any, dict[str, Any]]]) -> list[str]:
        entries = [{"name": name, "data": data, "opts": _camel(options)} for name, data, options in jobs]
        try:
            added = await self.peer.call(self.handle, "addBulk", entries)
        except NodePeerError as error:
            raise RefusedError(str(error), _code(error)) from error
        return [str(job["id"]) for job in added]

    async def view(self, job_id: str) -> JobView | None:
        job = await self.peer.call(self.handle, "getJob", job_id, state=True)
        if job is None:
            return None
        return JobView(
            name=job["name"],
            data=job["data"],
            timestamp=job["timestamp"],
            delay=job["delay"],
            priority=job["priority"],
            progress=job["progress"],
            returnvalue=job.get("returnvalue"),
            failed_reason=job.get("failedReason"),
            stacktrace=tuple(job["stacktrace"] or ()),
            attempts_made=job["attemptsMade"],
            attempts_started=job["attemptsStarted"],
            stalled_counter=job["stalledCounter"],
            processed_on=job.get("processedOn"),
            finished_on=job.get("finishedOn"),
            state=job["state"],
        )

    async def counts(self) -> dict[str, int]:
        return dict(await self.peer.call(self.handle, "getJobCounts"))

    async def ids(self, state: str) -> list[str]:
        return [job["id"] for job in await self.peer.call(self.handle, "getJobs", [state], 0, -1, True)]

    async def logs(self, job_id: str, start: int = 0, end: int = -1, *, asc: bool = True) -> tuple[list[str], int]:
        answer = await self.peer.call(self.handle, "getJobLogs", job_id, start, end, asc)
        return answer["logs"], answer["count"]

    async def add_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        return int(await self.peer.call(self.handle, "addJobLog", job_id, row, keep_logs or UNDEFINED))

    async def update_progress(self, job_id: str, value: Any) -> None:
        await self.peer.call(self.handle, "updateJobProgress", job_id, value)

    async def worker(
        self, script: Script | str, *, backoff_delays: list[int] | None = None, **options: Any
    ) -> SideWorker:
        handle = await self.peer.worker(self._name, _script(script), backoff_delays=backoff_delays, **_camel(options))
        return NodeWorker(self.peer, handle)

    async def doomed_worker(self, script: Script | str, **options: Any) -> DoomedWorker:
        peer = await NodePeer.start(self._redis, self._prefix)
        doomed = DoomedNodeWorker(peer)
        self._doomed.append(doomed)
        await peer.worker(self._name, _script(script), **_camel(options))
        return doomed

    async def fetch_by_hand(self, token: str) -> str:
        if not self._by_hand:
            self._by_hand = await self.peer.worker(self._name, None)
        job = await self.peer.next_job(self._by_hand, token, block=False)
        assert job is not None, "there was no job to fetch"
        return str(job["id"])

    async def finish_by_hand(self, job_id: str, token: str, *, error: str | None = None, value: Any = None) -> None:
        method, result = ("moveToCompleted", value) if error is None else ("moveToFailed", error)
        try:
            await self.peer.job(self._by_hand, job_id, method, result, token, False, held=True)
        except NodePeerError as failure:
            raise RefusedError(str(failure), _code(failure)) from failure

    async def close(self) -> None:
        # The queue and the workers go with the peer's reset.
        for doomed in self._doomed:
            doomed.kill()


def _camel(options: dict[str, Any]) -> dict[str, Any]:
    def rename(name: str) -> str:
        head, *tail = name.split("_")
        return head + "".join(part.capitalize() for part in tail)

    return {rename(name): value for name, value in options.items()}


def _code(error: NodePeerError) -> int | None:
    return error.code if isinstance(error.code, int) else None


# -- Ours --------------------------------------------------------------------------------------------------------------


class OurWorker(SideWorker):
    """A worker of ours in this process."""

    _SILENT = ("drained", "paused", "resumed", "ready", "closing", "closed")

    def __init__(self, script: Script) -> None:
        self._script = script
        self._gates = Gates()
        self._runs: list[Run] = []
        self._said: list[Outcome] = []
        self._worker: Worker[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<our worker: {self._said[-8:]}>"

    async def start(self, queue: str, **options: Any) -> OurWorker:
        """Starts the worker, with its listeners already in place."""
        from toromq import Worker

        worker = Worker(queue, self._process, **options)
        self._worker = worker
        say = self._said.append
        worker.on("active")(lambda job: say(Outcome("active", job.id)))
        worker.on("completed")(lambda job, result: say(Outcome("completed", job.id, result)))
        worker.on("failed")(lambda job, error: say(Outcome("failed", job.id, str(error))))
        worker.on("progress")(lambda job, value: say(Outcome("progress", job.id, value)))
        worker.on("stalled")(lambda job_id: say(Outcome("stalled", job_id)))
        worker.on("error")(lambda error: say(Outcome("error", None, str(error))))
        worker.on("lock_lost")(lambda job: say(Outcome("lock_lost", job.id)))
        await worker.__aenter__()
        return self

    async def _process(self, job: Job[Any, Any]) -> Any:
        self._runs.append(Run(job.id, job.name, job.data, job.attempts_made, job.attempts_started))
        return await run_script(self._script, job, self._gates)

    def runs(self, job_id: str | None = None) -> list[Run]:
        return [run for run in self._runs if job_id in (None, run.job_id)]

    def outcomes(self, *kinds: str, job_id: str | None = None) -> list[Outcome]:
        return [said for said in self._said if said.kind in kinds and job_id in (None, said.job_id)]

    async def open(self, job_id: str, value: Any = None, *, error: str | None = None) -> None:
        self._gates.open(job_id, value, error)

    async def close(self, *, force: bool = False) -> None:
        if self._worker is not None:
            await self._worker.close(force=force)


class DoomedOurWorker(DoomedWorker):
    """A worker of ours in a Python process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._seen: list[dict[str, Any]] = []

    async def heard(self, **wanted: Any) -> None:
        """Reads what the process says until it says this."""
        assert self._process.stdout is not None
        while wanted not in self._seen:
            line = await asyncio.wait_for(self._process.stdout.readline(), 20)
            assert line, f"the worker's process ended before it said {wanted}"
            self._seen.append(json.loads(line))

    async def started(self, job_id: str) -> None:
        await self.heard(started=job_id)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> None:
        """Collects the killed process."""
        self.kill()
        await self._process.wait()


@dataclass
class OurSide(Side):
    """The queue through our package."""

    redis: str
    prefix: str
    name: str
    implementation: str = "toromq"
    queue: Queue[Any, Any] | None = None
    _workers: list[OurWorker] = field(default_factory=list)
    _doomed: list[DoomedOurWorker] = field(default_factory=list)
    _by_hand: Worker[Any, Any] | None = None
    _held: dict[str, Job[Any, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "<toromq>"

    async def start(self) -> OurSide:
        """Creates the queue object."""
        from toromq import Queue

        self.queue = Queue(self.name, connection=self.redis, prefix=self.prefix)
        return self

    @property
    def _queue(self) -> Queue[Any, Any]:
        assert self.queue is not None, "the side was not started"
        return self.queue

    async def add(self, name: str, data: Any = MISSING, /, **options: Any) -> str:
        given = () if data is MISSING else (data,)
        try:
            job = await self._queue.add(name, *given, **options)
        except (TypeError, ValueError) as error:
            raise RefusedError(str(error)) from error
        return str(job.id)

    async def add_bulk(self, jobs: list[tuple[str, Any, dict[str, Any]]]) -> list[str]:
        try:
            return [job.id for job in await self._queue.add_bulk(jobs)]
        except (TypeError, ValueError) as error:
            raise RefusedError(str(error)) from error

    async def view(self, job_id: str) -> JobView | None:
        job = await self._queue.get_job(job_id)
        if job is None:
            return None
        return JobView(
            name=job.name,
            data=job.data,
            timestamp=job.timestamp,
            delay=job.delay,
            priority=job.priority,
            progress=job.progress,
            returnvalue=job.returnvalue,
            failed_reason=job.failed_reason,
            stacktrace=tuple(job.stacktrace),
            attempts_made=job.attempts_made,
            attempts_started=job.attempts_started,
            stalled_counter=job.stalled_counter,
            processed_on=job.processed_on,
            finished_on=job.finished_on,
            state=str(await self._queue.get_job_state(job_id)),
        )

    async def counts(self) -> dict[str, int]:
        return dict(await self._queue.get_job_counts())

    async def ids(self, state: str) -> list[str]:
        return [job.id for job in await self._queue.get_jobs([state], 0, -1, asc=True)]

    async def logs(self, job_id: str, start: int = 0, end: int = -1, *, asc: bool = True) -> tuple[list[str], int]:
        answer = await self._queue.get_job_logs(job_id, start, end, asc=asc)
        return list(answer.logs), answer.count

    async def add_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        return int(await self._queue.add_job_log(job_id, row, keep_logs=keep_logs))

    async def update_progress(self, job_id: str, value: Any) -> None:
        await self._queue.update_job_progress(job_id, value)

    async def worker(
        self, script: Script | str, *, backoff_delays: list[int] | None = None, **options: Any
    ) -> SideWorker:
        if backoff_delays is not None:
            delays = list(backoff_delays)
            options["backoff_strategy"] = lambda attempt, *_: delays[min(attempt, len(delays)) - 1]
        worker = OurWorker(_script(script))
        self._workers.append(worker)
        return await worker.start(self.name, connection=self.redis, prefix=self.prefix, **options)

    async def doomed_worker(self, script: Script | str, **options: Any) -> DoomedWorker:
        settings = {
            "url": self.redis,
            "prefix": self.prefix,
            "queue": self.name,
            "script": _script(script),
            "options": options,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("our_worker_process.py")),
            json.dumps(settings),
            stdout=asyncio.subprocess.PIPE,
        )
        doomed = DoomedOurWorker(process)
        self._doomed.append(doomed)
        await doomed.heard(ready=True)
        return doomed

    async def fetch_by_hand(self, token: str) -> str:
        from toromq import Worker

        if self._by_hand is None:
            self._by_hand = Worker(self.name, None, connection=self.redis, prefix=self.prefix)
        job = await self._by_hand.get_next_job(token, block=False)
        assert job is not None, "there was no job to fetch"
        self._held[job.id] = job
        return str(job.id)

    async def finish_by_hand(self, job_id: str, token: str, *, error: str | None = None, value: Any = None) -> None:
        from toromq.errors import ScriptError

        job = self._held[job_id]
        try:
            if error is None:
                await job.move_to_completed(value, token, fetch_next=False)
            else:
                await job.move_to_failed(RuntimeError(error), token, fetch_next=False)
        except ScriptError as failure:
            raise RefusedError(str(failure), failure.code) from failure

    async def close(self) -> None:
        for doomed in self._doomed:
            await doomed.gone()
        for worker in self._workers:
            await worker.close(force=True)
        if self._by_hand is not None:
            await self._by_hand.close(force=True)
        if self.queue is not None:
            await self.queue.close()
