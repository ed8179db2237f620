"""bullmq's FlowProducer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import toromq
from toromq._guards import is_mapping
from toromq.compat.bullmq._adapter import EventEmitter, ask
from toromq.compat.bullmq._job import Job
from toromq.compat.bullmq._options import Opts, job_options, queue_options
from toromq.compat.bullmq._queue import Queue
from toromq.errors import ConfigurationError


class FlowProducer(EventEmitter):
    """Adds trees of jobs. Options: prefix.

    Attributes:
        toromq: the toromq.FlowProducer behind it.
    """

    def __init__(self, redisOpts: dict[str, Any] | str | None = None, opts: Opts = None) -> None:
        super().__init__()
        given = {**(opts or {}), **({} if redisOpts is None else {"connection": redisOpts})}
        options = queue_options(given)
        options.pop("default_job_options", None)
        self.toromq = toromq.FlowProducer(**options)
        self.opts = given
        self.prefix = self.toromq.prefix
        self.closing = False
        self._queues: dict[tuple[str, str], Queue] = {}

    async def add(self, flow: dict[str, Any], opts: Opts = None) -> dict[str, Any] | None:
        """Add a tree of jobs: dicts of name, queueName, data, opts, prefix and children."""
        given: Any = (opts or {}).get("queuesOptions") or {}
        queues = {
            name: {"default_job_options": job_options(options.get("defaultJobOptions"), f"queuesOptions[{name!r}]")}
            for name, options in given.items()
        }
        added = ask(self.toromq.add, _flow_job(flow, "flow"), queues_options=queues, then=self._tree)
        tree: dict[str, Any] = await added
        return tree

    async def addBulk(self, flows: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Add several trees."""
        given = [_flow_job(flow, f"flows[{n}]") for n, flow in enumerate(flows)]
        trees: list[dict[str, Any]] = await ask(self.toromq.add_bulk, given, then=self._trees)
        return trees

    def _trees(self, added: Iterable[toromq.JobNode[Any]]) -> list[dict[str, Any]]:
        return [self._tree(node) for node in added]

    def _tree(self, node: toromq.JobNode[Any]) -> dict[str, Any]:
        described: dict[str, Any] = {"job": Job._of(self._queue(node.job.prefix, node.job.queue_name), node.job)}
        if node.children:
            described["children"] = self._trees(node.children)
        return described

    def _queue(self, prefix: str, name: str) -> Queue:
        found = self._queues.get((prefix, name))
        if found is None:
            found = Queue(name, {"connection": self.toromq._connection, "prefix": prefix})
            self._queues[prefix, name] = found
        return found

    async def close(self) -> None:
        """Close its connection."""
        self.closing = True
        await self.toromq.close()

    async def disconnect(self) -> None:
        """The same."""
        await self.close()


def _flow_job(given: Any, place: str) -> toromq.FlowJob:
    if not is_mapping(given):
        raise ConfigurationError(f"{place}: got {given!r}; allowed is a dict with name and queueName")
    for name in ("name", "queueName"):
        if name not in given:
            raise ConfigurationError(f"{place}.{name}: missing")
    options = job_options(given.get("opts"), f"{place}.opts")
    children = [_flow_job(child, f"{place}.children[{n}]") for n, child in enumerate(given.get("children") or ())]
    for child in children:
        # What a child says of its parent is not looked at.
        child.opts.pop("parent", None)
    made = toromq.FlowJob(
        given["name"], queue_name=given["queueName"], data=given.get("data"), prefix=given.get("prefix")
    )
    made.children, made.opts = [*children], options  # type: ignore[assignment]  # checked when it is added
    return made
