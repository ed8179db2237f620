"""A queue in plain Python: what every operation must leave behind, and what it must answer.

One method for each operation, written from the wire and not from any implementation. A method changes the model and
returns the answer to expect; what it cannot know beforehand, a time that a client took or an id that it chose, it takes
from what was seen after the operation, and checks that it is possible. Where Node and we answer differently on purpose,
the method asks ``by_node`` and says why.
"""

from __future__ import annotations

from tests.property.model.facts import LISTS, MOST, Refused, Seen
from tests.property.model.one_job import OneJob
from tests.property.model.running import Running


class Model(Running, OneJob):
    """One queue, and what is done to all of it."""

    # -- The whole queue --

    def retry_jobs(self, seen: Seen, by_node: bool, state: str, count: int, until: int | None) -> None:
        """All jobs of a state go behind those that wait."""
        for job_id in self.order(state):
            if until is None or self.zsets[state][job_id] <= until:
                del self.zsets[state][job_id]
                if state != "delayed":
                    self._unfinished(job_id, state)
                self._push(job_id, first=False)
                self._mark_base()
                self._event("waiting", job_id, prev=state)

    def promote_jobs(self, seen: Seen, by_node: bool, count: int) -> None:
        """All delayed jobs go behind those that wait; their hashes go on saying how long they were delayed."""
        self.retry_jobs(seen, by_node, "delayed", count, None)

    def clean(self, seen: Seen, by_node: bool, state: str, grace: int, limit: int) -> list[str]:
        """Old jobs of a state are deleted; the answer is which ones, without an order."""
        ids = self.order(state)
        if state in LISTS:
            ids.reverse()
        if state in ("completed", "failed"):
            ids = [job_id for job_id in ids if self.zsets[state][job_id] <= seen.before - grace]
            gone = ids[: limit or None]
        elif by_node:
            # Node looks at the first `limit` jobs alone, and so deletes fewer than it could.
            gone = [job_id for job_id in ids[: limit or None] if self._is_old(state, job_id, seen.before - grace)]
        else:
            gone = [job_id for job_id in ids if self._is_old(state, job_id, seen.before - grace)][: limit or None]
        for job_id in gone:
            self._clear_away(by_node, job_id)
        self._event("cleaned", count=str(len(gone)))
        return sorted(gone)

    def _is_old(self, state: str, job_id: str, cutoff: int) -> bool:
        job = self.jobs[job_id]
        if state == "active" and job.lock is not None:
            return False
        stamps: tuple[int | None, ...] = (job.timestamp,)
        if state == "delayed":
            stamps = (job.processedOn, job.timestamp)
        elif state in LISTS:
            stamps = (job.finishedOn, job.processedOn, job.timestamp)
        return next(stamp for stamp in stamps if stamp is not None) <= cutoff

    def drain(self, seen: Seen, by_node: bool, delayed: bool) -> None:
        """All jobs that wait are deleted."""
        for name in ("wait", "prioritized", *(("delayed",) if delayed else ())):
            for job_id in self.order(name):
                self._clear_away(by_node, job_id)

    def pause(self, seen: Seen, by_node: bool) -> None:
        """No more jobs start."""
        self.paused = self.unmarked = True
        self._event("paused")

    def resume(self, seen: Seen, by_node: bool) -> None:
        """Jobs start again."""
        self.paused = False
        if self.lists["wait"] or self.zsets["prioritized"]:
            self.marks["0"] = 0.0
        else:
            self._mark_delay()
        self._event("resumed")

    def obliterate(self, seen: Seen, by_node: bool, force: bool, count: int) -> Refused | None:
        """The queue is deleted, unless jobs are active and it is not forced."""
        self.pause(seen, by_node)
        if self.lists["active"] and not force:
            return Refused(-2)
        for name in ("active", "delayed", "completed", "wait", "prioritized", "failed"):
            for job_id in self.order(name):
                self._clear_away(by_node, job_id)
        fresh = Model(self.base)
        if by_node:
            # Node leaves parents that wait for children it does not see, and what is not the queue's own.
            fresh.jobs, fresh.zsets["waiting-children"] = self.jobs, self.zsets["waiting-children"]
            fresh.limiter, fresh.owners, fresh.kept_back = self.limiter, self.owners, self.kept_back
        vars(self).update(vars(fresh))
        self.obliterated = self.unmarked = True
        return None

    # -- Limits --

    def set_global_concurrency(self, seen: Seen, by_node: bool, concurrency: int | None) -> None:
        """How many jobs may be active at once."""
        self.concurrency = concurrency
        self._wake(by_node)

    def set_global_rate_limit(self, seen: Seen, by_node: bool, rate: tuple[int, int] | None) -> None:
        """How many jobs may start in a window."""
        self.rate = rate
        self._wake(by_node)

    def rate_limit(self, seen: Seen, by_node: bool, duration: int) -> None:
        """No job may start for a time, where there is a limit at all."""
        self.limiter = MOST

    def remove_rate_limit_key(self, seen: Seen, by_node: bool) -> bool:
        """The window begins anew; the answer is whether there was one."""
        had, self.limiter = self.limiter > 0, 0
        self._wake(by_node)
        return had
