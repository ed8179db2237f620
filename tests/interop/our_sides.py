"""The queue through our package: its async face with coroutines, and its blocking face with plain functions in threads.

Our package is imported where it is used, so that the Node side can be tested without it.

What the blocking face can't do as the async one does, all of it, and how the tests meet it:

- Threads can't be cancelled. A blocking worker closed by force leaves its jobs to the stalled pass, as Node does, which
  ``hands_back_when_forced`` says to ``test_crashes.py``; a lost lock does not end the processor either, which no test
  here asks for. A thread held by a gate is let go when the side closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from tests.interop.scripted import BlockingGates, Gates, Script, run_blocking, run_script
from tests.interop.sides import (
    MISSING,
    DoomedWorker,
    JobView,
    Outcome,
    RefusedError,
    Run,
    Side,
    SideWorker,
    Tree,
    TreeIds,
    script_of,
)
from tests.support.eventually import aeventually


def _scheduler(found: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(found).items() if value is not None}


async def _on_the_loop(operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await operation(*arguments, **options)


async def _in_a_thread(operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await asyncio.to_thread(operation, *arguments, **options)


class OurWorker(SideWorker):
    """A worker in this process, whose processor is a coroutine function."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._gates = Gates()
        self._runs: list[Run] = []
        self._said: list[Outcome] = []
        self._worker: Any = None

    def __repr__(self) -> str:
        return f"<our worker: {self._said[-8:]}>"

    def listen(self, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Makes the worker, and puts its listeners in place before it starts."""
        self._worker = worker = make(*arguments, **options)
        say = self._said.append
        worker.on("active")(lambda job: say(Outcome("active", job.id)))
        worker.on("completed")(lambda job, result: say(Outcome("completed", job.id, result)))
        worker.on("failed")(lambda job, error: say(Outcome("failed", job.id, str(error))))
        worker.on("progress")(lambda job, value: say(Outcome("progress", job.id, value)))
        worker.on("stalled")(lambda job_id: say(Outcome("stalled", job_id)))
        worker.on("error")(lambda error: say(Outcome("error", None, str(error))))
        worker.on("locks_renewed")(lambda ids: say(Outcome("locks_renewed", None, ids)))
        worker.on("lock_renewal_failed")(lambda ids: say(Outcome("lock_renewal_failed", None, ids)))
        worker.on("lock_lost")(lambda job: say(Outcome("lock_lost", job.id)))
        return worker

    async def start(self, make: Callable[..., Any], queue: str, processor: Any = None, **options: Any) -> None:
        """Makes the worker and starts it, with a processor other than the script if one is given."""
        await self.listen(make, queue, processor or self._process, **options).__aenter__()

    async def _process(self, job: Any) -> Any:
        self._noted(job)
        return await run_script(self._script, job, self._gates)

    def _noted(self, job: Any) -> None:
        self._runs.append(Run(job.id, job.name, job.data, job.attempts_made, job.attempts_started))

    def runs(self, job_id: str | None = None) -> list[Run]:
        return [run for run in self._runs if job_id in (None, run.job_id)]

    def outcomes(self, *kinds: str, job_id: str | None = None) -> list[Outcome]:
        return [said for said in self._said if said.kind in kinds and job_id in (None, said.job_id)]

    async def open(self, job_id: str, value: Any = None, *, error: str | None = None) -> None:
        self._gates.open(job_id, value, error)

    async def cancel(self, job_id: str, reason: str) -> bool:
        return bool(self._worker.cancel_job(job_id, reason))

    async def close(self, *, force: bool = False) -> None:
        await self._worker.close(force=force)

    async def call(self, operation: str, /, *arguments: Any) -> Any:
        method = getattr(self._worker, operation)
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        return await asyncio.to_thread(method, *arguments)

    async def gone(self) -> None:
        """Closes the worker by force, and waits for what may outlive that."""
        await self.close(force=True)


class OurBlockingWorker(OurWorker):
    """A worker in this process, whose processor is a plain function in threads that have no event loop."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self._gates: BlockingGates = BlockingGates()
        self._left: list[str] = []

    async def start(self, make: Callable[..., Any], queue: str, processor: Any = None, **options: Any) -> None:
        await asyncio.to_thread(self.listen(make, queue, processor or self._process_here, **options).__enter__)

    def _process_here(self, job: Any) -> Any:
        self._noted(job)
        try:
            return run_blocking(self._script, job, self._gates)
        finally:
            self._left.append(job.id)

    async def close(self, *, force: bool = False) -> None:
        await asyncio.to_thread(self._worker.close, force=force)

    async def gone(self) -> None:
        try:
            await asyncio.wait_for(super().gone(), 20)
        finally:
            # Whatever went wrong: a thread that still waits would keep the test run from ending.
            self._gates.give_up()
        await aeventually(lambda: len(self._left) == len(self._runs), message="all threads left the processor")


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


def _tree_ids(node: Any) -> TreeIds:
    return node.job.name, node.job.id, [_tree_ids(child) for child in node.children]


class OurSide(Side):
    """The queue through ``toromq``."""

    implementation = "toromq"
    hands_back_when_forced = True

    _face: ClassVar[str] = "toromq"
    _worker_type: ClassVar[type[OurWorker]] = OurWorker
    # How the result of an operation is waited for: all that tells the two faces apart.
    _done: Callable[..., Any] = staticmethod(_on_the_loop)

    def __init__(self, redis: str, prefix: str, name: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._name = name
        self._names = importlib.import_module(self._face)
        self._queue = self._names.Queue(name, connection=redis, prefix=prefix)
        self._workers: list[OurWorker] = []
        self._doomed: list[DoomedOurWorker] = []
        self._by_hand: Any = None
        self._held: dict[str, Any] = {}

    async def add(self, name: str, data: Any = MISSING, /, **options: Any) -> str:
        from toromq.errors import ScriptError

        given = () if data is MISSING else (data,)
        try:
            job = await self._done(self._queue.add, name, *given, **options)
        except (TypeError, ValueError, ScriptError) as error:
            raise RefusedError(str(error), getattr(error, "code", None)) from error
        return str(job.id)

    async def add_bulk(self, jobs: list[tuple[str, Any, dict[str, Any]]]) -> list[str]:
        from toromq.errors import ScriptError

        try:
            return [job.id for job in await self._done(self._queue.add_bulk, jobs)]
        except (TypeError, ValueError, ScriptError) as error:
            raise RefusedError(str(error), getattr(error, "code", None)) from error

    async def add_flows(
        self, *trees: Tree, queues_options: dict[str, dict[str, Any]] | None = None, bulk: bool = False
    ) -> list[TreeIds]:
        from toromq.errors import ScriptError

        producer = self._names.FlowProducer(connection=self._redis, prefix=self._prefix)
        given = [self._flow_job(tree) for tree in trees]
        options = {name: {"default_job_options": jobs} for name, jobs in (queues_options or {}).items()}
        try:
            if bulk or len(given) != 1:
                return [_tree_ids(tree) for tree in await self._done(producer.add_bulk, given)]
            return [_tree_ids(await self._done(producer.add, given[0], queues_options=options))]
        except (TypeError, ValueError, ScriptError) as error:
            raise RefusedError(str(error), getattr(error, "code", None)) from error
        finally:
            await self._done(producer.close)

    def _flow_job(self, tree: Tree) -> Any:
        data = {} if tree.data is MISSING else {"data": tree.data}
        children = [self._flow_job(child) for child in tree.children]
        return self._names.FlowJob(
            tree.name, queue_name=tree.queue, prefix=tree.prefix, children=children, **data, **tree.options
        )

    async def read_flow(self, queue: str, job_id: str, **extent: Any) -> TreeIds | None:
        producer = self._names.FlowProducer(connection=self._redis, prefix=self._prefix)
        found = await self._done(producer.get_flow, queue, job_id, **extent)
        await self._done(producer.close)
        return None if found is None else _tree_ids(found)

    async def view(self, job_id: str) -> JobView | None:
        job = await self._done(self._queue.get_job, job_id)
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
            state=await self._done(job.get_state),
        )

    async def counts(self) -> dict[str, int]:
        return dict(await self._done(self._queue.get_job_counts))

    async def ids(self, state: str) -> list[str]:
        return [job.id for job in await self._done(self._queue.get_jobs, [state], 0, -1, asc=True)]

    async def logs(self, job_id: str, start: int = 0, end: int = -1, *, asc: bool = True) -> tuple[list[str], int]:
        answer = await self._done(self._queue.get_job_logs, job_id, start, end, asc=asc)
        return list(answer.logs), answer.count

    async def add_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        return int(await self._done(self._queue.add_job_log, job_id, row, keep_logs=keep_logs))

    async def update_progress(self, job_id: str, value: Any) -> None:
        await self._done(self._queue.update_job_progress, job_id, value)

    async def call(self, operation: str, /, *arguments: Any, **options: Any) -> Any:
        return await self._asked(self._queue, operation, *arguments, **options)

    async def upsert_scheduler(self, scheduler: str, /, **given: Any) -> str | None:
        job = await self.call("upsert_job_scheduler", scheduler, **given)
        return None if job is None else str(job.id)

    async def schedulers(self, start: int = 0, end: int = -1, asc: bool = False) -> list[dict[str, Any]]:
        return [_scheduler(found) for found in await self.call("get_job_schedulers", start, end, asc)]

    async def scheduler(self, scheduler: str) -> dict[str, Any] | None:
        found = await self.call("get_job_scheduler", scheduler)
        return None if found is None else _scheduler(found)

    async def on_job(self, job_id: str, operation: str, /, *arguments: Any, **options: Any) -> Any:
        job = await self._done(self._queue.get_job, job_id)
        assert job is not None, f"there is no job {job_id}"
        return await self._asked(job, operation, *arguments, **options)

    async def _asked(self, of: Any, operation: str, *arguments: Any, **options: Any) -> Any:
        from toromq.errors import ScriptError

        try:
            answer = await self._done(getattr(of, operation), *arguments, **options)
        except (TypeError, ValueError, ScriptError) as error:
            raise RefusedError(str(error), getattr(error, "code", None)) from error
        return answer._asdict() if hasattr(answer, "_asdict") else answer

    async def worker(
        self, script: Script | str, *, backoff_delays: list[int] | None = None, **options: Any
    ) -> SideWorker:
        if backoff_delays is not None:
            delays = list(backoff_delays)
            options["backoff_strategy"] = lambda attempt, *_: delays[min(attempt, len(delays)) - 1]
        if "limiter" in options:
            options["limiter"] = self._names.RateLimit(**options["limiter"])
        worker = self._worker_type(script_of(script))
        await worker.start(self._names.Worker, self._name, connection=self._redis, prefix=self._prefix, **options)
        self._workers.append(worker)
        return worker

    async def sandboxed_worker(self, processor: str, **options: Any) -> SideWorker:
        """A worker whose processor, named as users name it, runs in child processes."""
        worker = self._worker_type({})
        options = {"connection": self._redis, "prefix": self._prefix, **options}
        await worker.start(self._names.Worker, self._name, processor, **options)
        self._workers.append(worker)
        return worker

    async def doomed_worker(self, script: Script | str, *, workers: int = 1, **options: Any) -> DoomedWorker:
        settings = {
            "face": self._face,
            "workers": workers,
            "url": self._redis,
            "prefix": self._prefix,
            "queue": self._name,
            "script": script_of(script),
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

    async def look_for_stalled(self, **options: Any) -> None:
        worker = self._worker_type({})
        worker.listen(self._names.Worker, self._name, connection=self._redis, prefix=self._prefix, **options)
        self._workers.append(worker)
        await worker.call("start_stalled_check_timer")

    async def process_by_hand(self, processor: Any, token: str) -> str:
        """Fetches a job and runs a processor on it, without a worker's loop."""
        worker = self._names.Worker(self._name, processor, connection=self._redis, prefix=self._prefix)
        job = await self._done(worker.get_next_job, token, block=False)
        assert job is not None, "there was no job to fetch"
        assert await self._done(worker.process_job, job, token) is None
        await self._done(worker.close)
        return str(job.id)

    async def fetch_by_hand(self, token: str) -> str:
        if self._by_hand is None:
            self._by_hand = self._names.Worker(self._name, None, connection=self._redis, prefix=self._prefix)
        job = await self._done(self._by_hand.get_next_job, token, block=False)
        assert job is not None, "there was no job to fetch"
        self._held[job.id] = job
        return str(job.id)

    async def finish_by_hand(self, job_id: str, token: str, *, error: str | None = None, value: Any = None) -> None:
        from toromq.errors import ScriptError

        job = self._held[job_id]
        try:
            if error is None:
                await self._done(job.move_to_completed, value, token, fetch_next=False)
            else:
                await self._done(job.move_to_failed, RuntimeError(error), token, fetch_next=False)
        except ScriptError as failure:
            raise RefusedError(str(failure), failure.code) from failure

    async def close(self) -> None:
        for doomed in self._doomed:
            await doomed.gone()
        for worker in self._workers:
            await worker.gone()
        if self._by_hand is not None:
            await self._done(self._by_hand.close, force=True)
        await self._done(self._queue.close)


class OurBlockingSide(OurSide):
    """The queue through ``toromq.sync``; every operation blocks a thread, never the event loop of the tests."""

    implementation = "sync"
    hands_back_when_forced = False

    _face = "toromq.sync"
    _worker_type = OurBlockingWorker
    _done = staticmethod(_in_a_thread)
