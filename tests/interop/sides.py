"""The implementations behind one face, so that one body of tests runs in every direction.

A :class:`Side` is a queue of one implementation, a :class:`SideWorker` one of its workers; ``node_side.py`` and
``our_sides.py`` have them. Options are spelled the Python way on all; scripts are the processors that ``peer/peer.mjs``
and ``scripted.py`` both know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from tests.interop.scripted import Script
from tests.support.eventually import aeventually

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


@dataclass(frozen=True)
class Tree:
    """A job of a flow to add, with the jobs below it; options are spelled the Python way."""

    name: str
    queue: str
    children: tuple[Tree, ...] = ()
    prefix: str | None = None
    data: Any = MISSING
    options: dict[str, Any] = field(default_factory=dict[str, Any])


TreeIds = tuple[str, str, "list[TreeIds]"]
"""A tree as an implementation gave it: name and id of a job, and those below it."""


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
    async def cancel(self, job_id: str, reason: str) -> bool:
        """Tells a job that this worker runs to end; whether it runs it."""

    @abstractmethod
    async def call(self, operation: str, /, *arguments: Any) -> Any:
        """Any other operation of the worker, by its name in Python."""

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

    implementation: ClassVar[str]
    hands_back_when_forced: ClassVar[bool]
    """Whether a worker closed by force puts back the jobs it runs, rather than leave them to the stalled pass."""

    def __repr__(self) -> str:
        return f"<{self.implementation}>"

    async def start(self) -> Self:
        """Makes it ready; to be called once."""
        return self

    @abstractmethod
    async def add(self, name: str, data: Any = MISSING, /, **options: Any) -> str:
        """Adds a job and returns its id."""

    @abstractmethod
    async def add_bulk(self, jobs: list[tuple[str, Any, dict[str, Any]]]) -> list[str]:
        """Adds jobs in one call and returns their ids in order."""

    @abstractmethod
    async def add_flows(
        self, *trees: Tree, queues_options: dict[str, dict[str, Any]] | None = None, bulk: bool = False
    ) -> list[TreeIds]:
        """Adds trees in one call, which is that for many if there are more, or with ``bulk``; returns their ids.

        ``queues_options`` has options of jobs by names of queues.

        Raises:
            RefusedError: The producer turned it down.
        """

    @abstractmethod
    async def read_flow(self, queue: str, job_id: str, **extent: Any) -> TreeIds | None:
        """Reads a tree."""

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
    async def call(self, operation: str, /, *arguments: Any, **options: Any) -> Any:
        """Any other operation of the queue, by its name in Python; a result with named parts comes as a dict.

        Raises:
            RefusedError: The queue turned it down.
        """

    @abstractmethod
    async def upsert_scheduler(self, scheduler: str, /, **given: Any) -> str | None:
        """Makes or replaces a job scheduler; returns the id of its next job, or None where there is none.

        Raises:
            RefusedError: The queue turned it down.
        """

    @abstractmethod
    async def schedulers(self, start: int = 0, end: int = -1, asc: bool = False) -> list[dict[str, Any]]:
        """The job schedulers, with what is set only, by the names of Python."""

    @abstractmethod
    async def scheduler(self, scheduler: str) -> dict[str, Any] | None:
        """One of them."""

    @abstractmethod
    async def on_job(self, job_id: str, operation: str, /, *arguments: Any, **options: Any) -> Any:
        """The same for an operation of a job that exists."""

    @abstractmethod
    async def worker(
        self, script: Script | str, *, backoff_delays: list[int] | None = None, **options: Any
    ) -> SideWorker:
        """Starts a worker with a scripted processor; ``limiter`` is a dict of ``max`` and ``duration``."""

    @abstractmethod
    async def doomed_worker(self, script: Script | str, **options: Any) -> DoomedWorker:
        """Starts a worker in a process of its own, to be killed."""

    @abstractmethod
    async def look_for_stalled(self, **options: Any) -> None:
        """Starts a worker without processor that does nothing but look for stalled jobs."""

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


def script_of(script: Script | str) -> Script:
    """A script by its name alone, or with settings."""
    return {"name": script} if isinstance(script, str) else script
