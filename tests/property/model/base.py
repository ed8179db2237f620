"""The structures of a queue, and the moves that operations are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.property.model.facts import LISTS, SLOTS, STATES, STEP, ZSETS, Add, Job, Refused, Text


@dataclass
class Base:
    """One queue."""

    base: str  # what the queue's keys begin with
    jobs: dict[str, Job] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in LISTS})
    zsets: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in ZSETS})
    counter: int = 0  # of jobs with a priority
    owners: dict[str, tuple[str, bool]] = field(default_factory=dict)  # deduplication id: owner, and whether it expires
    kept_back: dict[str, tuple[str | Text, Add]] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    paused: bool = False
    concurrency: int | None = None
    rate: tuple[int, int] | None = None
    limiter: int = 0
    obliterated: bool = False
    # What the last operation wrote:
    events: list[dict[str, Any]] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)
    perhaps: set[str] = field(default_factory=set)  # markers that only some clients write
    unmarked: bool = False  # whether it deleted the markers first

    # -- Looking --

    def state(self, job_id: str) -> str:
        """The structure a job is in, or "unknown"."""
        structures: dict[str, Any] = {**self.lists, **self.zsets}
        return next((name for name in STATES if job_id in structures[name]), "unknown")

    def order(self, name: str) -> list[str]:
        """The ids in a structure: a list from head to tail, a sorted set by score."""
        if name in LISTS:
            return list(self.lists[name])
        return [member for member, _ in sorted(self.zsets[name].items(), key=lambda item: (item[1], item[0].encode()))]

    def blocked(self) -> bool:
        """Whether no job may start."""
        return self.paused or (self.concurrency is not None and len(self.lists["active"]) >= self.concurrency)

    def next_due(self, now: int) -> int | None:
        """When the next job becomes due that is not due yet."""
        return min((due for score in self.zsets["delayed"].values() if (due := score // SLOTS) > now), default=None)

    # -- Moving --

    def _store(self, job_id: str, job: Job) -> None:
        self.jobs[job_id] = job
        self._event("added", job_id, name=job.name)

    def _enqueue(self, job_id: str, base: int) -> None:
        job = self.jobs[job_id]
        if job.delay > 0:
            self._delay_until(job_id, base + job.delay)
            self._mark_delay()
        else:
            self._wait(job_id, first=job.lifo)
            self._event("waiting", job_id)

    def _delay_until(self, job_id: str, due: int) -> None:
        low, high = due * SLOTS, (due + 1) * SLOTS - 1
        taken = [score for score in self.zsets["delayed"].values() if low <= score <= high]
        self.zsets["delayed"][job_id] = min(max(taken) + 1, high) if taken else low
        self._event("delayed", job_id, delay=str(due))

    def _wait(self, job_id: str, *, first: bool = False) -> None:
        priority = self.jobs[job_id].priority
        if priority > 0:
            self.counter += 1
            self.zsets["prioritized"][job_id] = priority * STEP + self.counter
        else:
            self._push(job_id, first=first)
        self._mark_base()

    def _push(self, job_id: str, *, first: bool) -> None:
        self.lists["wait"].insert(len(self.lists["wait"]) if first else 0, job_id)

    def _leave(self, job_id: str) -> None:
        for members in self.lists.values():
            if job_id in members:
                members.remove(job_id)
        for scores in self.zsets.values():
            scores.pop(job_id, None)

    def _drop_deduplication(self, job_id: str) -> None:
        key = self.jobs[job_id].deid
        if key is not None and self.owners.get(key, ("", False))[0] == job_id:
            del self.owners[key]
            self.kept_back.pop(key, None)

    def _unlock(self, job_id: str, token: str) -> Refused | None:
        refusal = self._refusal(job_id, token)
        if refusal is None:
            self.jobs[job_id].lock = None
            self.suspects.discard(job_id)
            self.lists["active"].remove(job_id)
        return refusal

    def _refusal(self, job_id: str, token: str) -> Refused | None:
        job = self.jobs.get(job_id)
        if job is None:
            return Refused(-1)
        if job.lock is None:
            return Refused(-2)
        return None if job.lock == token else Refused(-6)

    # -- What is written beside --

    def _event(self, name: str, job_id: Any = None, /, **fields: Any) -> None:
        self.events.append({"event": name, **({} if job_id is None else {"jobId": job_id}), **fields})

    def _mark_base(self) -> None:
        if not self.blocked():
            self.marks["0"] = 0.0

    def _mark_delay(self) -> None:
        if self.zsets["delayed"]:
            self.marks["1"] = min(self.zsets["delayed"].values()) / SLOTS

    def begin(self) -> None:
        """Forgets what the last operation wrote."""
        self.events, self.marks, self.perhaps = [], {}, set()
        self.unmarked = self.obliterated = False

    def targets(self, states: Iterable[str]) -> list[str]:
        """The jobs in some states, in an order that does not depend on times."""
        return [job_id for job_id in self.jobs if self.state(job_id) in states]

    def _left_active(self, by_node: bool) -> None:
        # Whoever was kept from fetching by a concurrency is woken, where nothing is fetched in the same call.
        if self.concurrency is not None:
            self._wake(by_node)

    def _wake(self, by_node: bool) -> None:
        # What had to wait may start now, and only we wake somebody for it.
        if not by_node and (self.lists["wait"] or self.zsets["prioritized"]):
            self._mark_base()
