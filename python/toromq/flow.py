"""Flows: trees of jobs in which each waits for those below it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from toromq._bridge import NativeFlows, make, port
from toromq._flow_nodes import FlowJob, FlowQueueOptions, JobNode, PackedFlows, read_tree
from toromq._tracing import adding_flows, check_telemetry
from toromq.connection import Connection, connection_of
from toromq.errors import ConfigurationError
from toromq.job import Job
from toromq.options import check_prefix, check_queue_name, flag, job_id_of, whole, with_hints
from toromq.queue import Queue

if TYPE_CHECKING:
    from toromq.telemetry import Telemetry


class FlowProducer:
    """Adds trees of jobs, of any queues, and reads them. Making one has no side effect; the first operation connects.

    Args:
        connection: a toromq.Connection, which others can share, or a URL: redis://, rediss://, unix:// or
            embedded:PATH. Default: $TOROMQ_URL, else redis://localhost:6379/0.
        prefix: what the keys of the queues begin with, where a job names no other.
        telemetry: traces what is added, and lets each job carry the trace: toromq.telemetry.OpenTelemetry(), or another
            tracer.

    Operations raise RedisConnectionError when Redis stays away for the connection's `command_timeout`.

    Example:
        >>> async with FlowProducer() as flow:
        ...     tree = await flow.add(FlowJob("report", queue_name="reports", children=[
        ...         FlowJob("fetch", queue_name="pages", data={"region": "us"}),
        ...         FlowJob("fetch", queue_name="pages", data={"region": "eu"})]))
    """

    @with_hints
    def __init__(
        self,
        *,
        connection: Connection | str | None = None,
        prefix: str = "bull",
        telemetry: Telemetry | None = None,
    ) -> None:
        """See the class."""
        self._telemetry = check_telemetry(telemetry)
        self.prefix = check_prefix(prefix)
        self._connection = connection_of(connection)
        self._owns_connection = self._connection is not connection
        self._queues: dict[tuple[str, str], Queue[Any, Any]] = {}
        self._made: tuple[int, NativeFlows] | None = None

    async def __aenter__(self) -> Self:
        """Give the producer itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close its connection, unless it was given one that others may share. Closing twice is harmless.

        The jobs it gave are on the same connection; what is done with them afterwards opens it again.
        """
        self._made = None
        for queue in self._queues.values():
            await queue.close()
        self._queues.clear()
        if self._owns_connection:
            self._connection.close()

    async def disconnect(self) -> None:
        """The same as `close`: nothing is waited for in either."""
        await self.close()

    async def wait_until_ready(self) -> None:
        """Return once Redis answers.

        Raises:
            RedisConnectionError: it did not for the connection's `command_timeout`.
        """
        await port().call(self._native().wait_until_ready)

    def _native(self) -> NativeFlows:
        pid = os.getpid()
        # A forked child must not use its parent's connection.
        if self._made is None or self._made[0] != pid:
            self._made = (pid, make(NativeFlows, self._connection._native()))
        return self._made[1]

    def _queue(self, prefix: str, name: str) -> Queue[Any, Any]:
        found = self._queues.get((prefix, name))
        if found is None:
            found = Queue(name, connection=self._connection, prefix=prefix, skip_metas_update=True)
            self._queues[prefix, name] = found
        return found

    async def add(
        self,
        flow: FlowJob | Mapping[str, Any],
        *,
        queues_options: Mapping[str, FlowQueueOptions] | None = None,
    ) -> JobNode[Job[Any, Any]]:
        """Add a tree of jobs: all of them in one step, or none.

        A job begins to wait in its queue once those below it have ended. Jobs without an id of their own get a UUID.
        One whose `job_id` is taken joins the tree as it is: a job that has completed counts as done, any other is
        waited for, and `is_duplicate` of what is returned for it is True. A flow whose reply was lost is looked for
        before it is sent again, so that one call never makes two.

        It is one script call, beside which nothing else runs: Redis serves nobody for 10 to 20 ms for each 1,000 jobs.

        Args:
            flow: the topmost job; see FlowJob.
            queues_options: options that jobs have where they give no own, by the name of their queue:
                `{"pages": {"default_job_options": {"attempts": 3}}}`.

        Returns:
            The tree of what was added, job by job as it was given.

        Raises:
            SerializationError: the data of a job is not JSON.
            ConfigurationError: an option of a job is not allowed, or an id comes twice.
            ParentNotFoundError: the topmost job's `parent` does not exist.
            ParentConflictError: the `job_id` of a child is that of another parent's child, or of a job above it.
            ScriptError: a key that is needed holds something else.

            Each of these names the job's place in the tree, such as `children[2].children[0]`; nothing was added.
        """
        (tree,) = await self._add([("", flow)], queues_options, False)
        return tree

    async def add_bulk(
        self,
        flows: Iterable[FlowJob | Mapping[str, Any]],
        *,
        queues_options: Mapping[str, FlowQueueOptions] | None = None,
    ) -> list[JobNode[Job[Any, Any]]]:
        """Add several trees: all jobs of all of them in one step, or none. In all else as `add`.

        Raises:
            SerializationError, ConfigurationError, ParentNotFoundError, ParentConflictError, ScriptError: as for `add`;
                places begin with that of the tree, such as `flows[1].children[0]`.
        """
        if not isinstance(flows, Iterable) or isinstance(flows, str | bytes | Mapping):
            raise ConfigurationError(f"flows: got {flows!r}; allowed is a list of FlowJobs")
        given = [(f"flows[{n}]", flow) for n, flow in enumerate(flows)]
        return await self._add(given, queues_options, True) if given else []

    async def _add(self, flows: Any, queues_options: Any, in_bulk: bool) -> list[JobNode[Job[Any, Any]]]:
        if self._telemetry is None:
            packed = PackedFlows(flows, self.prefix, queues_options)
            outcomes = await port().call(self._native().add, packed.queues, packed.nodes)
        else:
            with adding_flows(self._telemetry, [flow for _, flow in flows], in_bulk) as spans:
                packed = PackedFlows(flows, self.prefix, queues_options, spans)
                outcomes = await port().call(self._native().add, packed.queues, packed.nodes)
        return packed.trees(outcomes, self._added)

    def _added(self, prefix: str, name: str, outcome: tuple[str, bool], job: tuple[Any, ...]) -> Job[Any, Any]:
        return self._queue(prefix, name)._added(outcome, job)

    def _read(self, prefix: str, name: str, stored: Any) -> Job[Any, Any]:
        return Job(self._queue(prefix, name), stored)

    async def get_flow(
        self,
        queue_name: str,
        job_id: str,
        *,
        prefix: str | None = None,
        depth: int = 10,
        max_children: int = 20,
        states: bool = False,
    ) -> JobNode[Job[Any, Any]] | None:
        """A job and those below it; None where there is no such job.

        It is read level by level, so that what changes meanwhile may be seen in part. Children that were removed are
        left out. Of each job come the children that completed first, then the pending ones, those that failed, and
        those whose failure was ignored; in the order of their keys within each.

        Args:
            queue_name: the queue of the topmost job.
            job_id: the topmost job.
            prefix: what that queue's keys begin with; default: that of the producer.
            depth: how many levels to read, the topmost job's being the first.
            max_children: how many children of each of these four kinds to read of one job.
            states: whether to read the state of each job as well, and how many children it has, into `node.state` and
                `node.children_count`.
        """
        found = await port().call(
            self._native().read,
            self.prefix if prefix is None else check_prefix(prefix),
            check_queue_name(queue_name),
            job_id_of(job_id),
            whole("depth", depth, 1, 10_000),
            whole("max_children", max_children, 1, 1_000_000),
            flag("states", states),
        )
        return read_tree(found, self._read)
