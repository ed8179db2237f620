"""The queue through Node BullMQ, inside the Node peer."""

from __future__ import annotations

import re
from typing import Any, Self

from tests.interop.scripted import Script
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
from tests.support.node_peer import UNDEFINED, NodePeer, NodePeerError


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
            Outcome(_snake_word(item["name"]), item.get("jobId"), _value_of(item))
            for item in self._peer.events("worker", handle=self.handle)
            if _snake_word(item["name"]) in kinds and job_id in (None, item.get("jobId"))
        ]

    async def open(self, job_id: str, value: Any = None, *, error: str | None = None) -> None:
        await self._peer.open(self.handle, job_id, value, error=error)

    async def cancel(self, job_id: str, reason: str) -> bool:
        return bool(await self._peer.call(self.handle, "cancelJob", job_id, reason))

    async def call(self, operation: str, /, *arguments: Any) -> Any:
        return await self._peer.call(self.handle, _camel_word(operation), *arguments)

    async def close(self, *, force: bool = False) -> None:
        await self._peer.close_handle(self.handle, force=force)


def _value_of(item: dict[str, Any]) -> Any:
    if "error" in item:
        return item["error"]["message"]
    return item.get("result", item.get("progress", item.get("jobIds")))


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
    hands_back_when_forced = False

    def __init__(self, peer: NodePeer, redis: str, prefix: str, name: str) -> None:
        self.peer = peer
        self._redis = redis
        self._prefix = prefix
        self._name = name
        self.handle = ""
        self._doomed: list[DoomedNodeWorker] = []
        self._by_hand = ""

    async def start(self) -> Self:
        self.handle = await self.peer.queue(self._name, prefix=self._prefix)
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

    async def add_flows(
        self, *trees: Tree, queues_options: dict[str, dict[str, Any]] | None = None, bulk: bool = False
    ) -> list[TreeIds]:
        handle = await self.peer.flow_producer(prefix=self._prefix)
        given = [_node_tree(tree) for tree in trees]
        try:
            if bulk or len(given) != 1:
                return [_tree_ids(tree) for tree in await self.peer.call(handle, "addBulk", given)]
            options = {name: {"defaultJobOptions": _camel(jobs)} for name, jobs in (queues_options or {}).items()}
            return [_tree_ids(await self.peer.call(handle, "add", given[0], {"queuesOptions": options}))]
        except NodePeerError as error:
            raise RefusedError(str(error), _code(error)) from error
        finally:
            await self.peer.close_handle(handle)

    async def read_flow(self, queue: str, job_id: str, **extent: Any) -> TreeIds | None:
        handle = await self.peer.flow_producer(prefix=self._prefix)
        found = await self.peer.call(handle, "getFlow", {"queueName": queue, "id": job_id, **_camel(extent)})
        await self.peer.close_handle(handle)
        return None if found is None else _tree_ids(found)

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

    async def call(self, operation: str, /, *arguments: Any, **options: Any) -> Any:
        given = (*arguments, _camel(options)) if options else arguments
        try:
            return await self.peer.call(self.handle, _camel_word(operation), *given)
        except NodePeerError as error:
            raise RefusedError(str(error), _code(error)) from error

    async def upsert_scheduler(self, scheduler: str, /, **given: Any) -> str | None:
        template = {name: given.pop(name) for name in ("name", "data", "opts") if name in given}
        if "opts" in template:
            template["opts"] = _camel(template["opts"])
        job = await self.call("upsert_job_scheduler", scheduler, _camel(given), template)
        return None if job is None else str(job["id"])

    async def schedulers(self, start: int = 0, end: int = -1, asc: bool = False) -> list[dict[str, Any]]:
        return [_scheduler(found) for found in await self.call("get_job_schedulers", start, end, asc)]

    async def scheduler(self, scheduler: str) -> dict[str, Any] | None:
        found = await self.call("get_job_scheduler", scheduler)
        return None if found is None else _scheduler(found)

    async def on_job(self, job_id: str, operation: str, /, *arguments: Any, **options: Any) -> Any:
        given = (*arguments, _camel(options)) if options else arguments
        try:
            return await self.peer.job(self.handle, job_id, _camel_word(operation), *given)
        except NodePeerError as error:
            raise RefusedError(str(error), _code(error)) from error

    async def worker(
        self, script: Script | str, *, backoff_delays: list[int] | None = None, **options: Any
    ) -> SideWorker:
        if "metrics" in options:
            options["metrics"] = {"maxDataPoints": options["metrics"]}
        options["prefix"] = self._prefix
        handle = await self.peer.worker(self._name, script_of(script), backoff_delays=backoff_delays, **_camel(options))
        return NodeWorker(self.peer, handle)

    async def doomed_worker(self, script: Script | str, **options: Any) -> DoomedWorker:
        peer = await NodePeer.start(self._redis, self._prefix)
        doomed = DoomedNodeWorker(peer)
        self._doomed.append(doomed)
        await peer.worker(self._name, script_of(script), **_camel(options))
        return doomed

    async def look_for_stalled(self, **options: Any) -> None:
        handle = await self.peer.worker(self._name, None, **_camel(options))
        await self.peer.call(handle, "startStalledCheckTimer")

    async def fetch_by_hand(self, token: str) -> str:
        if not self._by_hand:
            self._by_hand = await self.peer.worker(self._name, None, prefix=self._prefix)
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


def _node_tree(tree: Tree) -> dict[str, Any]:
    described: dict[str, Any] = {"name": tree.name, "queueName": tree.queue, "opts": _camel(tree.options)}
    if tree.prefix is not None:
        described["prefix"] = tree.prefix
    if tree.data is not MISSING:
        described["data"] = tree.data
    if tree.children:
        described["children"] = [_node_tree(child) for child in tree.children]
    return described


def _tree_ids(node: dict[str, Any]) -> TreeIds:
    # A child that was removed is null.
    below = [_tree_ids(child) for child in node.get("children") or () if child]
    return node["job"]["name"], str(node["job"]["id"]), below


def _camel(options: dict[str, Any]) -> dict[str, Any]:
    return {
        _camel_word(name): _camel(value) if isinstance(value, dict) else value for name, value in options.items()
    }



def _scheduler(found: dict[str, Any]) -> dict[str, Any]:
    template = found.pop("template", None)
    told = {_snake(name): value for name, value in found.items()}
    if template is not None:
        opts = {_snake(name): value for name, value in template.get("opts", {}).items()}
        told["template"] = {"data": template.get("data"), "opts": opts}
    return told


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _camel_word(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _snake_word(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _code(error: NodePeerError) -> int | None:
    return error.code if isinstance(error.code, int) else None
