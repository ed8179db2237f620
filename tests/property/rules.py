"""What is done to a queue at random. A rule is one step, or a few that go together."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.property.machine import HOUR, LONG_AGO, SOON, Machine, Run
from tests.property.model.facts import STATES, Add, Flow

_values = st.sampled_from([{"n": 1}, None, "text", [1, {"deep": [None]}], 2.5, "\u00fc \u20ac \U0001f600", {}])
_keep = st.sampled_from(
    [True, False, 1, 2, {"count": 1}, {"age": 3600}, {"age": 0}, {"age": 0, "limit": 1, "count": 2}]
)
_options = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from([0, 1, 2, 2_097_151]),
        "delay": st.sampled_from([0, SOON, HOUR, 2 * HOUR]),
        "lifo": st.booleans(),
        "attempts": st.integers(0, 3),
        "backoff": st.sampled_from([SOON, HOUR]),
        "timestamp": st.just(LONG_AGO),
        "job_id": st.sampled_from(["job-a", "job-b", "job-c", "job-d"]),
        "remove_on_complete": _keep,
        "remove_on_fail": _keep,
        "keep_logs": st.integers(1, 2),
        "stack_trace_limit": st.integers(0, 2),
    },
)
_adds = st.builds(Add, st.sampled_from(["mail", "resize"]), _values, _options)
_flags = st.sampled_from(
    [
        None, "fail_parent_on_failure", "continue_parent_on_failure", "ignore_dependency_on_failure",
        "remove_dependency_on_failure",
    ]
)  # fmt: skip
_clients = st.sampled_from(["node", "sync", "toromq"])
_picks = st.integers(0, 30)
_few = st.integers(0, 2)
_rules = st.fixed_dictionaries(
    {"id": st.sampled_from(["k", "l"])},
    optional={
        "ttl": st.just(HOUR),
        "extend": st.just(True),
        "replace": st.just(True),
        "reschedule": st.just(True),
        "keep_last_if_active": st.just(True),
    },
)
_aims = st.sampled_from(["fit", "fit", "fit", "any"])
_finished = st.sampled_from(["completed", "failed"])


class QueueMachine(Machine):
    """One queue, and everything that clients and time do to it."""

    # -- Rules: adding --

    @initialize(by=_clients, jobs=st.lists(_adds, min_size=3, max_size=8))
    def begin(self, by: str, jobs: list[Add]) -> None:
        self.add_bulk(by, jobs)

    @rule(by=_clients, job=_adds)
    def add(self, by: str, job: Add) -> None:
        self.step(by, "add", job=self._dated(job))

    @rule(by=_clients, jobs=st.lists(_adds, min_size=1, max_size=4))
    def add_bulk(self, by: str, jobs: list[Add]) -> None:
        self.step(by, "add_bulk", jobs=[self._dated(job) for job in jobs])

    @rule(by=_clients, job=_adds, aim=_aims, pick=_picks, flag=_flags)
    def add_child(self, by: str, job: Add, aim: str, pick: int, flag: str | None) -> None:
        """Adds a child to a job, mostly to one that runs, as its processor would."""
        self._add_child(by, self._target(aim, pick, "active", "waiting-children"), job, flag)

    def _add_child(self, by: str, parent: str, job: Add, flag: str | None) -> None:
        options = {**job.options, "parent": {"id": parent, "queue": self.base[:-1]}}
        if flag is not None:
            options[flag] = True
        job_id = options.get("job_id")
        if job_id is not None and (job_id == parent or self.model.is_above(job_id, parent)):
            del options["job_id"]  # Nobody can run a job that is its own grandfather.
        self.step(by, "add", job=self._dated(replace(job, options=options)))

    @rule(by=_clients, jobs=st.lists(st.tuples(_adds, _flags), min_size=2, max_size=5), nested=st.booleans())
    def add_flow(self, by: str, jobs: list[tuple[Add, str | None]], nested: bool) -> None:
        """Adds a root and its children, or with ``nested`` a chain of them."""
        added: list[Add] = []
        for n, (job, flag) in enumerate(jobs):
            options = {name: value for name, value in job.options.items() if name != "timestamp"}
            if n > 0:
                above = added[-1 if nested else 0].options["job_id"]
                options |= {"parent": {"id": above, "queue": self.base[:-1]}, **({flag: True} if flag else {})}
            added.append(replace(job, options={**options, "job_id": f"flow-{len(self.story)}-{n}"}))
        root, *rest = added
        if nested:
            flow = Flow(rest.pop())
            while rest:
                flow = Flow(rest.pop(), (flow,))
            flow = Flow(root, (flow,))
        else:
            flow = Flow(root, tuple(Flow(job) for job in rest))
        self.step(by, "add_flow", flow=flow)

    @rule(by=_clients, job=_adds, rule=_rules)
    def add_deduplicated(self, by: str, job: Add, rule: dict[str, Any]) -> None:
        # What was kept back is stored under the id of the job that was rejected, whatever stands there by then.
        options = {name: value for name, value in job.options.items() if name != "job_id"}
        job = self._dated(replace(job, options={**options, "deduplication": rule}))
        self.step(by, "add", job=job)

    @rule(by=_clients, key=st.sampled_from(["k", "l"]))
    def remove_deduplication_key(self, by: str, key: str) -> None:
        if key in self.model.owners:
            self.step(by, "remove_deduplication_key", key=key)

    # -- Rules: running --

    def _fetch(self, by: str) -> None:
        token = f"t{next(self.tokens)}"
        self._fetched(by, token, self.step(by, "fetch", token=token))

    def _complete(self, by: str, run: Run, value: Any, fetch_next: bool) -> None:
        fetch_next = fetch_next and not self._releases_soon(run)
        answer = self.step(by, "complete", job_id=run.job_id, token=run.token, value=value, fetch_next=fetch_next)
        self._fetched(by, run.token, answer)

    def _fail_run(self, by: str, run: Run, final: bool, fetch_next: bool) -> None:
        fetch_next = fetch_next and not self._releases_soon(run)
        end = {"reason": f"reason {len(self.story)}", "unrecoverable": final, "fetch_next": fetch_next}
        answer = self.step(by, "fail", job_id=run.job_id, token=run.token, **end)
        self._fetched(by, run.token, answer)

    def _some_run(self, by: str, aim: str, pick: int) -> Run | None:
        """A run to end; if there is none, a job is fetched for it."""
        if self._run(by, "fit", pick) is None or not any(map(self._holds, self.runs)):
            self._fetch(by)
        return self._run(by, aim, pick)

    @rule(by=_clients, times=st.integers(1, 3))
    def fetch(self, by: str, times: int) -> None:
        for _ in range(times):
            self._fetch(by)

    @rule(by=_clients, aim=_aims, pick=_picks, value=_values, fetch_next=st.booleans())
    def complete(self, by: str, aim: str, pick: int, value: Any, fetch_next: bool) -> None:
        run = self._some_run(by, aim, pick)
        if run is not None:
            self._complete(by, run, value, fetch_next)

    @rule(by=_clients, aim=_aims, pick=_picks, final=st.sampled_from([False, False, True]), fetch_next=st.booleans())
    def fail(self, by: str, aim: str, pick: int, final: bool, fetch_next: bool) -> None:
        run = self._some_run(by, aim, pick)
        if run is not None:
            self._fail_run(by, run, final, fetch_next)

    @rule(by=_clients, ends=st.lists(st.sampled_from(["complete", "fail", "fail for good"]), min_size=2, max_size=5))
    def work(self, by: str, ends: list[str]) -> None:
        """Fetches and ends one job after the other."""
        for end in ends:
            self._fetch(by)
            run = self._run(by, "fit", 0)
            if run is None or not self._holds(run):
                return
            if end == "complete":
                self._complete(by, run, None, False)
            else:
                self._fail_run(by, run, end == "fail for good", False)

    @rule(by=_clients, aim=_aims, pick=_picks, to=st.sampled_from(["wait", "now", "a moment ago", "soon", "an hour"]))
    def put_off(self, by: str, aim: str, pick: int, to: str) -> None:
        run = self._some_run(by, aim, pick)
        if run is None:
            return
        if to == "wait":
            self.step(by, "move_to_wait", job_id=run.job_id, token=run.token)
        else:
            until = time.time_ns() // 1_000_000 + {"now": 0, "a moment ago": -1, "soon": SOON, "an hour": HOUR}[to]
            self.step(by, "move_to_delayed", job_id=run.job_id, token=run.token, until=until)

    @rule(by=_clients, aim=_aims, pick=_picks, jobs=st.lists(st.tuples(_adds, _flags), max_size=3))
    def wait_for_children(self, by: str, aim: str, pick: int, jobs: list[tuple[Add, str | None]]) -> None:
        """Adds children to a job that runs and lets it wait for them."""
        run = self._some_run(by, aim, pick)
        if run is not None:
            for job, flag in jobs:
                self._add_child(by, run.job_id, job, flag)
            self.step(by, "move_to_waiting_children", job_id=run.job_id, token=run.token)

    @rule(by=st.lists(_clients, min_size=1, max_size=3), pick=_picks, locks=_few, allowed=_few)
    def stall(self, by: list[str], pick: int, locks: int, allowed: int) -> None:
        """Locks run out, and workers look after stalled jobs: the second look finds what the first one suspected."""
        for _ in range(locks):
            held = [job_id for job_id in self.model.targets(["active"]) if self.model.jobs[job_id].lock is not None]
            if held:
                self.step("redis", "lose_lock", job_id=held[pick % len(held)])
        for client in by:
            self.bench.redis.delete(f"{self.base}stalled-check")
            self.step(client, "find_stalled", allowed=allowed)

    # -- Rules: one job --

    @rule(by=_clients, aim=_aims, pick=_picks, delay=st.sampled_from([None, None, 0, SOON, HOUR]))
    def promote_or_put_off(self, by: str, aim: str, pick: int, delay: int | None) -> None:
        job_id = self._target(aim, pick, "delayed")
        if delay is None:
            self.step(by, "promote", job_id=job_id)
        else:
            self.step(by, "change_delay", job_id=job_id, delay=delay)

    @rule(by=_clients, aim=_aims, pick=_picks, state=_finished, made=st.booleans(), started=st.booleans())
    def retry(self, by: str, aim: str, pick: int, state: str, made: bool, started: bool) -> None:
        if not self.model.zsets[state]:
            self.work(by, ["complete", "complete"] if state == "completed" else ["fail for good", "fail for good"])
        job_id = self._target(aim, pick, state)
        self.step(by, "retry", job_id=job_id, state=state, reset_made=made, reset_started=started)

    @rule(by=_clients, aim=_aims, pick=_picks, priority=st.sampled_from([0, 1, 2, 3]), lifo=st.booleans())
    def change_priority(self, by: str, aim: str, pick: int, priority: int, lifo: bool) -> None:
        job_id = self._target(aim, pick, "wait", "prioritized")
        self.step(by, "change_priority", job_id=job_id, priority=priority, lifo=lifo)

    @rule(by=_clients, pick=_picks, value=_values, what=st.sampled_from(["data", "progress", "log", "clear", "keep"]))
    def touch(self, by: str, pick: int, value: Any, what: str) -> None:
        job_id = self._target("any", pick)
        if what == "data":
            self.step(by, "update_data", job_id=job_id, data=value)
        elif what == "progress":
            self.step(by, "update_progress", job_id=job_id, progress=value)
        else:
            self.step(by, "log", job_id=job_id, row=f"row {len(self.story)}")
            if what != "log":
                self.step(by, "clear_logs", job_id=job_id, keep=1 if what == "keep" else 0)

    @rule(by=_clients, pick=_picks, children=st.booleans())
    def remove(self, by: str, pick: int, children: bool) -> None:
        self.step(by, "remove", job_id=self._target("any", pick), children=children)

    @rule(by=_clients, aim=_aims, pick=_picks, whose=st.sampled_from(["child", "parent"]))
    def let_go(self, by: str, aim: str, pick: int, whose: str) -> None:
        """A child is let go by its parent, or a parent by its children."""
        jobs = self.model.jobs.items()
        if whose == "child":
            fitting = [job_id for job_id, job in jobs if job.parent is not None]
        else:
            fitting = [job_id for job_id, job in jobs if job.pending]
        job_id = fitting[pick % len(fitting)] if aim == "fit" and fitting else self._target("any", pick)
        self.step(by, "remove_child_dependency" if whose == "child" else "remove_unprocessed_children", job_id=job_id)

    # -- Rules: the whole queue --

    @rule(
        by=_clients,
        state=st.sampled_from(["completed", "failed", "delayed"]),
        count=st.sampled_from([1, 2, 1000]),
        until=st.none() | _picks,
    )
    def retry_jobs(self, by: str, state: str, count: int, until: int | None) -> None:
        if state == "delayed":
            self.step(by, "promote_jobs", count=count)
            return
        ends = sorted(self.model.zsets[state].values())
        moment = ends[until % len(ends)] if until is not None and ends else None
        self.step(by, "retry_jobs", state=state, count=count, until=moment)

    @rule(by=_clients, fit=st.booleans(), pick=_picks, grace=st.sampled_from([0, 0, HOUR]), limit=st.integers(0, 3))
    def clean(self, by: str, fit: bool, pick: int, grace: int, limit: int) -> None:
        states = [state for state in STATES if state != "waiting-children"]
        filled = [state for state in states if fit and self.model.order(state)] or states
        self.step(by, "clean", state=filled[pick % len(filled)], grace=grace, limit=limit)

    @rule(by=_clients, how=st.sampled_from(["drain", "drain", "drain all", "obliterate", "force", "", ""]))
    def sweep(self, by: str, how: str) -> None:
        """Deletes a lot; not too often, or nothing else would be seen."""
        if how.startswith("drain"):
            self.step(by, "drain", delayed=how == "drain all")
        elif how:
            self.step(by, "obliterate", force=how == "force", count=1 if by == "sync" else 1000)

    @rule(
        by=_clients,
        until=_clients,
        how=st.sampled_from(["pause", "concurrency", "rate", "rate by hand", "both rates"]),
        most=st.integers(1, 3),
        jobs=st.lists(_adds, max_size=2),
        ends=st.lists(st.sampled_from(["complete", "fail"]), max_size=3),
        stays=st.sampled_from([False, False, False, True]),
    )
    def limit(
        self, by: str, until: str, how: str, most: int, jobs: list[Add], ends: list[str], stays: bool
    ) -> None:
        """Limits the queue, lets some work run against the limit, and mostly takes it away again."""
        if how == "pause":
            self.step(by, "pause")
        elif how == "concurrency":
            self.step(by, "set_global_concurrency", concurrency=most)
        if "rate" in how and how != "rate by hand":
            self.step(by, "set_global_rate_limit", rate=(most, HOUR))
        if how in ("rate by hand", "both rates"):
            self.step(by, "rate_limit", duration=HOUR)
        for job in jobs:
            self.step(by, "add", job=self._dated(job))
        self.work(until, ends)
        if not stays:
            self.lift(until)

    @rule(by=_clients)
    def lift(self, by: str) -> None:
        """Takes away all limits that there are."""
        if self.model.paused:
            self.step(by, "resume")
        if self.model.concurrency is not None:
            self.step(by, "set_global_concurrency", concurrency=None)
        if self.model.limiter:
            self.step(by, "remove_rate_limit_key")
        if self.model.rate is not None:
            self.step(by, "set_global_rate_limit", rate=None)
