"""One step of the search: an operation, what it should leave behind, and everything that is stored."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from hypothesis.stateful import RuleBasedStateMachine

from tests.property.bench import Bench
from tests.property.clients import Actor, Client, NodeClient, OurBlockingClient, OurClient, Redis, closed
from tests.property.compare import differences
from tests.property.model.facts import LISTS, STATES, Add, Impossible, Refused, Seen
from tests.property.model.queue import Model
from tests.support.eventually import aeventually
from tests.support.invariants import check_invariants
from tests.support.keyspace import KeyValue, keyspace

HOUR: Final = 3_600_000
# Short enough to be waited for, long enough that the operation that set it is over.
SOON: Final = 10
# What may become due during an operation is waited for before it, so that it is known which jobs were due.
_HORIZON_MS: Final = 500
# Replaced by a time long ago when the job is added.
LONG_AGO: Final = -1
_FETCHING: Final = frozenset(("fetch", "complete", "fail"))
NOBODY: Final = "nobody"


class Difference(AssertionError):
    """What is stored, or what a client answered, is not what the model says."""


class Run(NamedTuple):
    """A job that somebody fetched."""

    by: str
    job_id: str
    token: str


class Machine(RuleBasedStateMachine):
    """One queue under test, without the rules that say what is done to it."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.name = f"q{next(bench.names)}"
        self.base = f"{bench.prefix}:{self.name}:"
        self.model = Model(self.base)
        self.runs: list[Run] = []
        self.story: list[str] = []
        self.markers: dict[str, float] = {}
        self.events = 0
        self.last_ms = 0
        self.failed = False
        self.tokens = itertools.count(1)
        self.clients: dict[str, Client] = {}
        self.actors: dict[str, Actor] = {}
        bench.examples += 1
        bench.run(self._open())

    async def _open(self) -> None:
        bench = self.bench
        for kind in (OurClient, OurBlockingClient):
            self.clients[kind.name] = kind(bench.redis, bench.url, bench.prefix, self.name)
        self.clients["node"] = await NodeClient(bench.peer, self.name).open()
        self.actors = {**self.clients, "redis": Redis(bench.redis, self.base)}

    # -- One step --

    def step(self, by: str, operation: str, **arguments: Any) -> Any:
        """Lets a client run one operation, and compares everything there is with the model."""
        model, actor, bench = self.model, self.actors[by], self.bench
        spelled = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        self.story.append(f"{len(self.story) + 1:3}. {by}.{operation}({spelled})")
        self._await_what_is_due(operation in _FETCHING)
        # Taken away as by an idle worker, so that what this operation writes is seen.
        bench.redis.delete(f"{self.base}marker")
        try:
            before = time.time_ns() // 1_000_000
            answer = bench.run(actor.call(operation, arguments))
            seen = Seen(before, time.time_ns() // 1_000_000, self._keys(), answer)
            self.story[-1] += f" -> {answer!r}"
            model.begin()
            expected = getattr(model, operation)(seen, actor.is_node, **arguments)
            found = [] if expected == answer else [f"answer: expected {expected!r}, found {answer!r}"]
            found += differences(model, seen, self._new_events(seen))
            self._restore_markers(seen)
            found += self._lies()
            found += bench.run(self._listings())
        except Impossible as error:
            found = [str(error)]
        except Exception as error:
            self._fail([f"it raised {error!r}"], error)
        if found:
            self._fail(found)
        bench.steps[by] += 1
        bench.operations[operation] += 1
        bench.refused += isinstance(answer, Refused)
        return answer

    def _fail(self, found: list[str], cause: Exception | None = None) -> None:
        self.failed = True
        lines = ["the last of these operations went wrong:", *self.story, *(f"  - {line}" for line in found)]
        raise Difference("\n".join(lines)) from cause

    def _await_what_is_due(self, fetching: bool) -> None:
        now = max(time.time_ns() // 1_000_000, self.last_ms)
        due = self.model.next_due(now) if fetching else None
        if due is not None and due < now + _HORIZON_MS:
            now = due
        # No two steps share a millisecond: what finished first is known.
        while time.time_ns() // 1_000_000 <= now:
            time.sleep(0.0005)
        self.last_ms = time.time_ns() // 1_000_000

    def _keys(self) -> dict[str, KeyValue]:
        everything = keyspace(self.bench.redis, self.bench.prefix)
        return {key.removeprefix(self.base): value for key, value in everything.items()}

    def _new_events(self, seen: Seen) -> list[dict[str, str]]:
        stream = seen.keys.get("events")
        entries: list[dict[str, str]] = [] if stream is None else stream.value
        if self.model.obliterated:
            self.events = 0
        new, self.events = entries[self.events :], len(entries)
        return new

    def _restore_markers(self, seen: Seen) -> None:
        written = seen.keys.get("marker")
        kept = {} if self.model.unmarked else self.markers
        self.markers = {**kept, **({} if written is None else written.value)}
        if self.markers:
            self.bench.redis.zadd(f"{self.base}marker", self.markers)

    async def _listings(self) -> list[str]:
        """What each client says of the queue as a whole."""
        model = self.model
        names = {"wait": "waiting"}
        expected = {names.get(name, name): len(model.order(name)) for name in STATES}
        found = []
        for client in self.clients.values():
            counts = await client.counts()
            if counts != expected:
                found.append(f"counts of {client.name}: expected {expected}, found {counts}")
        # One client and one state in turn; all of them every time would be most of the work.
        n = len(self.story)
        client, name, asc = list(self.clients.values())[n % 3], STATES[n % len(STATES)], n % 2 == 0
        order = model.order(name)
        order = order if asc != (name in LISTS) else order[::-1]
        listed = await client.ranges(name, asc=asc)
        if listed != order:
            found.append(f"{name} as {client.name} lists it (asc={asc}): expected {order}, found {listed}")
        some = [*itertools.islice(itertools.cycle(model.jobs), n % 7, n % 7 + 2), NOBODY] if model.jobs else [NOBODY]
        expected_states = [names.get(state, state) for state in map(model.state, some)]
        states = await client.states(some)
        if states != expected_states:
            found.append(f"states of {some} by {client.name}: expected {expected_states}, found {states}")
        return found

    # -- Whom it concerns --

    def _target(self, aim: str, pick: int, *states: str) -> str:
        """A job in one of the states if there is one, or any job at all, one that does not exist included."""
        fitting = self.model.targets(states) if aim == "fit" else []
        candidates = fitting or [*self.model.jobs, NOBODY]
        return candidates[pick % len(candidates)]

    def _run(self, by: str, aim: str, pick: int) -> Run | None:
        """A run that this client can end: one that still has its lock if there is one, or any."""
        # Node takes a job from Redis and its token from anybody; by hand, we end what we fetched.
        mine = [run for run in self.runs if by in ("node", run.by)]
        held = [run for run in mine if aim == "fit" and self._holds(run)]
        candidates = held or mine
        return candidates[pick % len(candidates)] if candidates else None

    def _holds(self, run: Run) -> bool:
        job = self.model.jobs.get(run.job_id)
        return job is not None and job.lock == run.token

    def _releases_soon(self, run: Run) -> bool:
        """Whether its end may make a job due so soon that it could be fetched along or not."""
        job = self.model.jobs.get(run.job_id)
        return job is not None and (job.parent is not None or job.opts.get("backoff", {}).get("delay") == SOON)

    def _fetched(self, by: str, token: str, answer: Any) -> None:
        if isinstance(answer, str):
            self.runs.append(Run(by, answer, token))

    def _dated(self, job: Add) -> Add:
        if "timestamp" not in job.options:
            return job
        return replace(job, options={**job.options, "timestamp": time.time_ns() // 1_000_000 - 2 * HOUR})

    # -- The end --

    def teardown(self) -> None:
        """Lets real workers run what is left, unless something went wrong before; then cleans up."""
        try:
            if not self.failed:
                self._let_workers_finish()
        finally:
            self.bench.run(closed(list(self.clients.values())))
            keys = list(self.bench.redis.scan_iter(f"{self.base}*", count=1000))
            if keys:
                self.bench.redis.unlink(*keys)

    def _let_workers_finish(self) -> None:
        if self.model.paused:
            self.step("toromq", "resume")
        if self.model.concurrency is not None:
            self.step("node", "set_global_concurrency", concurrency=None)
        if self.model.rate is not None:
            self.step("node", "set_global_rate_limit", rate=None)
        for run in list(self.runs):
            if self._holds(run):
                job = {"job_id": run.job_id, "token": run.token, "fetch_next": False}
                if isinstance(self.step(run.by, "complete", **job, value=None), Refused):  # It has children.
                    self.step(run.by, "fail", **job, reason="children", unrecoverable=True)
        if self.model.zsets["delayed"]:
            self.step("node", "promote_jobs", count=1000)
        self.bench.redis.delete(f"{self.base}stalled-check")
        self.story.append("     then workers of all three clients run what is left")
        left = self.model.targets(("wait", "prioritized", "active"))
        doomed = {job_id for job_id in left if self._is_doomed(job_id)}
        try:
            ran = self.bench.run(self._workers(len(left)))
        except Exception as error:
            self._fail([f"it raised {error!r}"], error)
        # How often parents run depends on who ends first.
        parents = {job_id for job_id, job in self.model.jobs.items() if job.pending or job.unsuccessful}
        wanted = [job_id for job_id in left if job_id not in doomed | parents]
        # What was kept back until one of these jobs ends runs as well, under an id that is not known for certain.
        more = [job_id for job_id in ran if job_id not in parents and job_id not in wanted]
        kept_back = [key for key in self.model.kept_back if any(self.model.jobs[job_id].deid == key for job_id in left)]
        found = []
        if sorted(wanted) != sorted(job_id for job_id in ran if job_id in wanted) or len(set(more)) != len(kept_back):
            found.append(f"expected one run each of {sorted(wanted)} and {len(kept_back)} more, found {sorted(ran)}")
        states = dict(zip(left, self.bench.run(self.clients["toromq"].states(left)), strict=True))
        for job_id, state in states.items():
            end, option = ("failed", "removeOnFail") if job_id in doomed else ("completed", "removeOnComplete")
            # A job may go with its own end or with that of another.
            may_go = any(self.model.jobs[other].opts.get(option, False) for other in self.model.jobs)
            if job_id not in parents and state != end and not (may_go and state == "unknown"):
                found.append(f"job {job_id} is {state}")
        found += self._lies()
        if found:
            self._fail(found)
        self.bench.run_by_workers += len(left)

    def _lies(self) -> list[str]:
        """What the keys say that can't be true, but for the windows that Node leaves to jobs that are no more."""
        left = {f":de:{key} is owned by job {owner}," for key, (owner, _) in self.model.owners.items()
                if owner not in self.model.jobs}  # fmt: skip
        lies = check_invariants(self.bench.redis, self.bench.prefix)
        return [lie for lie in lies if not any(words in lie for words in left)]

    def _is_doomed(self, job_id: str) -> bool:
        """Whether workers fail a job without running it: it has stalled too often, or does so now."""
        job = self.model.jobs[job_id]
        stalls = job_id in self.model.lists["active"]
        return job.defa is not None or (stalls and (job.stc or 0) + 1 > 1)

    async def _workers(self, expected: int) -> list[str]:
        runs: list[Callable[[], list[str]]] = [await client.start_worker() for client in self.clients.values()]
        client = self.clients["node"]

        async def idle() -> bool:
            counts = await client.counts()
            if counts["delayed"]:  # What was kept back may have a delay of its own.
                await client.call("promote_jobs", {"count": 1000})
            return not any(counts[name] for name in ("waiting", "prioritized", "delayed", "active"))

        if expected:
            await aeventually(idle, timeout=30, message="workers ran everything")
        return [job_id for ran in runs for job_id in ran()]
