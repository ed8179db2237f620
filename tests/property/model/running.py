"""Fetching and ending jobs."""

from __future__ import annotations

from typing import Any

from tests.property.model.adding import Adding
from tests.property.model.facts import SLOTS, STALLED, STEP, Impossible, Refused, Seen


class Running(Adding):
    """What workers do."""

    # -- Running --

    def fetch(self, seen: Seen, by_node: bool, token: str) -> str | None:
        """A worker takes the next job."""
        found = self._fetch(seen, token)
        return found[0] if found else None

    def _fetch(self, seen: Seen, token: str) -> tuple[str | None] | None:
        """The id, (None,) when there is a reason to come back at a time or after others, None for nothing."""
        blocked = self.blocked()
        self._promote_due(seen.before)
        if self.rate is not None and 0 < self.rate[0] <= self.limiter:
            return (None,)
        if blocked:
            return (None,)
        if self.lists["wait"]:
            job_id = self.lists["wait"].pop()
        elif self.zsets["prioritized"]:
            job_id = self.order("prioritized")[0]
            del self.zsets["prioritized"][job_id]
        else:
            self.counter = 0
            return (None,) if self.zsets["delayed"] else None
        self.lists["active"].insert(0, job_id)
        job = self.jobs[job_id]
        if self.rate is not None and job.defa is None:
            self.limiter += 1
        job.lock, job.processedOn, job.ats = token, seen.stamp(job_id, "processedOn"), (job.ats or 0) + 1
        self._event("active", job_id, prev="waiting")
        self.marks["0"] = 0.0
        return (job_id,)

    def _promote_due(self, now: int) -> None:
        blocked = self.blocked()
        due = [job_id for job_id in self.order("delayed") if self.zsets["delayed"][job_id] < (now + 1) * SLOTS]
        for job_id in due:
            del self.zsets["delayed"][job_id]
            self.jobs[job_id].delay = 0
            if self.jobs[job_id].priority > 0:
                self.counter += 1
                self.zsets["prioritized"][job_id] = self.jobs[job_id].priority * STEP + self.counter
            else:
                self._push(job_id, first=False)
            self._event("waiting", job_id, prev="delayed")
        if due and not blocked:
            self.marks["0"] = 0.0

    def _fetched_along(self, seen: Seen, by_node: bool, token: str, fetch_next: bool) -> str | None:
        # Ours is a call of its own.
        self._left_active(by_node)
        found = self._fetch(seen, token) if fetch_next else None
        return found[0] if found else None

    def complete(
        self, seen: Seen, by_node: bool, job_id: str, token: str, value: Any, fetch_next: bool
    ) -> str | Refused | None:
        """A worker's job completes; the answer is the job it gets next, if it asked for one."""
        known = self.jobs.get(job_id)
        if known is not None and (known.pending or known.unsuccessful):
            self._left_active(by_node)
            return Refused(-4 if known.pending else -9)
        refusal = self._unlock(job_id, token)
        if refusal is not None:
            self._left_active(by_node)
            return refusal
        job = self.jobs[job_id]
        self._end_deduplication(job_id, seen)
        self._child_completed(seen, job_id, value)
        job.atm = (job.atm or 0) + 1
        job.returnvalue = value
        self._finished(seen, job_id, "completed", job.opts.get("removeOnComplete"))
        self._event("completed", job_id, returnvalue=value, prev="active")
        return self._after_the_end(seen, by_node, token, fetch_next)

    def fail(
        self, seen: Seen, by_node: bool, job_id: str, token: str, reason: str, unrecoverable: bool, fetch_next: bool
    ) -> str | Refused | None:
        """A worker's job throws; it is tried again if it has attempts left."""
        known = self.jobs.get(job_id)
        opts = {} if known is None else known.opts
        backoff = opts.get("backoff", {}).get("delay", 0)
        made = 1 if known is None else (known.atm or 0) + 1
        again = made < opts.get("attempts", 0) and not unrecoverable
        # Node promotes before it looks whether the job may be retried at all; we do once it was.
        if by_node and again and backoff == 0:
            self._promote_due(seen.before)
        refusal = self._unlock(job_id, token)
        if refusal is not None:
            self._left_active(by_node)
            return refusal
        job = self.jobs[job_id]
        limit = opts.get("stackTraceLimit")
        job.stacktrace = min((job.stacktrace or 0) + 1, 1000 if limit is None else limit)
        job.failedReason = reason
        if not again:
            self._end_deduplication(job_id, seen)
            self._child_failed(seen, job_id, reason)
            job.atm, job.defa = made, None
            self._finished(seen, job_id, "failed", job.opts.get("removeOnFail"))
            self._event("failed", job_id, failedReason=reason, prev="active")
            if made >= opts.get("attempts", 0):
                self._event("retries-exhausted", job_id, attemptsMade=str(made))
            return self._after_the_end(seen, by_node, token, fetch_next)
        job.atm = made
        if backoff > 0:
            job.delay = backoff
            self._delay_until(job_id, seen.due(job_id, backoff))
            following = self._fetched_along(seen, by_node, token, fetch_next)
            # With a job fetched along, that one's marker stands in for the delayed one's, which we write all the same.
            if following is not None:
                self.perhaps.add("1")
            self._mark_delay()
            return following
        if not by_node:
            self._promote_due(seen.before)
        self._wait(job_id, first=job.lifo)
        self._event("waiting", job_id, prev="active")
        # Node does not fetch along with such a retry.
        return self._fetched_along(seen, by_node, token, fetch_next and not by_node)

    def _finished(self, seen: Seen, job_id: str, target: str, policy: Any) -> None:
        if isinstance(policy, bool):
            policy = {"count": 0} if policy else {}
        elif isinstance(policy, int):
            policy = {"count": policy}
        policy = policy or {}
        count = policy.get("count", -1)
        if count == 0:
            self._forget(job_id)
            return
        stays = job_id in seen.keys
        now = seen.stamp(job_id, "finishedOn") if stays else seen.after
        self.jobs[job_id].finishedOn = self.zsets[target][job_id] = now
        newest_first = self.order(target)[::-1]
        gone = []
        if "age" in policy:
            old = [other for other in newest_first if self.zsets[target][other] <= now - policy["age"] * 1000]
            gone = old[: policy.get("limit", 1000)]
        if count > 0:
            gone += [other for other in newest_first if other not in gone][count:]
        for other in gone:
            self._forget(other)

    def _after_the_end(self, seen: Seen, by_node: bool, token: str, fetch_next: bool) -> str | None:
        # Ours fetches in a call of its own; the end of the queue is told before.
        if fetch_next and by_node:
            found = self._fetch(seen, token)
            if found:
                return found[0]
        if not self.lists["wait"] and not self.lists["active"] and not self.zsets["prioritized"]:
            self._event("drained")
        return self._fetched_along(seen, by_node, token, fetch_next and not by_node)

    def move_to_delayed(self, seen: Seen, by_node: bool, job_id: str, token: str, until: int) -> Refused | None:
        """A worker puts its job off."""
        refusal = self._unlock(job_id, token)
        if refusal is not None:
            self._left_active(by_node)
            return refusal
        job = self.jobs[job_id]
        job.delay = int(seen.hash(job_id)["delay"])
        if not max(0, until - seen.after) <= job.delay <= max(0, until - seen.before):
            raise Impossible(f"job {job_id} has a delay of {job.delay}, not until {until}")
        self._delay_until(job_id, seen.due(job_id, job.delay))
        self._mark_delay()
        self._left_active(by_node)
        return None

    def move_to_wait(self, seen: Seen, by_node: bool, job_id: str, token: str) -> Refused | None:
        """A worker gives its job back, next of its kind to run."""
        refusal = self._unlock(job_id, token)
        if refusal is not None:
            self._left_active(by_node)
            return refusal
        priority = self.jobs[job_id].priority
        if priority > 0:
            self.zsets["prioritized"][job_id] = priority * STEP
        else:
            self._push(job_id, first=True)
            self._mark_base()
        self._event("waiting", job_id, prev="active")
        self._left_active(by_node)
        return None

    def lose_lock(self, seen: Seen, by_node: bool, job_id: str) -> None:
        """A lock runs out."""
        self.jobs[job_id].lock = None

    def find_stalled(self, seen: Seen, by_node: bool, allowed: int) -> list[str]:
        """A stalled pass; the answer is which jobs were given back."""
        found = [job_id for job_id in sorted(self.suspects) if job_id in self.lists["active"]]
        found = [job_id for job_id in found if self.jobs[job_id].lock is None]
        # The set has no order, so the list says in which they came.
        after = seen.keys.get("wait")
        places = {} if after is None else {job_id: place for place, job_id in enumerate(after.value)}
        for job_id in sorted(found, key=lambda job_id: places.get(job_id, -1)):
            job = self.jobs[job_id]
            self.lists["active"].remove(job_id)
            job.stc = (job.stc or 0) + 1
            if job.stc > allowed:
                job.defa = STALLED
            self._push(job_id, first=True)
            self._mark_base()
            self._event("waiting", job_id, prev="active")
            self._event("stalled", job_id)
        self.suspects = set(self.lists["active"])
        return found
