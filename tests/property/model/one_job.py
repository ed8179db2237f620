"""What is done to a job from outside."""

from __future__ import annotations

from typing import Any

from tests.property.model.facts import STEP, Job, Refused, Seen
from tests.property.model.families import Families


class OneJob(Families):
    """Operations on one job."""

    # -- One job --

    def promote(self, seen: Seen, by_node: bool, job_id: str) -> Refused | None:
        """A delayed job goes to where it waits."""
        if job_id not in self.jobs and not by_node:
            return Refused(-1)  # Node does not look whether there is such a job.
        if self.zsets["delayed"].pop(job_id, None) is None:
            return Refused(-3)
        self._wait(job_id)
        self._event("waiting", job_id, prev="delayed")
        self.jobs[job_id].delay = 0
        return None

    def retry(
        self, seen: Seen, by_node: bool, job_id: str, state: str, reset_made: bool, reset_started: bool
    ) -> Refused | None:
        """A finished job is queued again."""
        if job_id not in self.jobs:
            return Refused(-1)
        if self.zsets[state].pop(job_id, None) is None:
            return Refused(-3)
        job = self._unfinished(job_id, state)
        if reset_made:
            job.atm = None
        if reset_started:
            job.ats = None
        self._wait(job_id, first=job.lifo)
        self._event("waiting", job_id, prev=state)
        return None

    def _unfinished(self, job_id: str, state: str) -> Job:
        job = self.jobs[job_id]
        self._child_back(job_id, state)
        job.finishedOn = job.processedOn = None
        if state == "failed":
            job.failedReason = None
        else:
            job.returnvalue = ...
        return job

    def change_delay(self, seen: Seen, by_node: bool, job_id: str, delay: int) -> Refused | None:
        """A delayed job gets another time, counted from now."""
        if job_id not in self.jobs:
            return Refused(-1)
        if job_id not in self.zsets["delayed"]:
            return Refused(-3)
        # The slot is looked for while the job has its own.
        self._delay_until(job_id, seen.due(job_id, delay))
        self.jobs[job_id].delay = delay
        self._mark_delay()
        return None

    def change_priority(self, seen: Seen, by_node: bool, job_id: str, priority: int, lifo: bool) -> Refused | None:
        """A job gets another priority, and if it waits another place."""
        if job_id not in self.jobs:
            return Refused(-1)
        self.jobs[job_id].priority = priority
        if self.zsets["prioritized"].pop(job_id, None) is not None or job_id in self.lists["wait"]:
            if job_id in self.lists["wait"]:
                self.lists["wait"].remove(job_id)
            if priority > 0 and lifo:
                # Node writes no marker here, which leaves a worker asleep where it was given work; we do.
                self.zsets["prioritized"][job_id] = priority * STEP
                self.perhaps.add("0")
            else:
                self._wait(job_id, first=lifo)
        return None

    def update_data(self, seen: Seen, by_node: bool, job_id: str, data: Any) -> Refused | None:
        """A job's data is replaced."""
        if job_id not in self.jobs:
            return Refused(-1)
        self.jobs[job_id].data = data
        return None

    def update_progress(self, seen: Seen, by_node: bool, job_id: str, progress: Any) -> Refused | None:
        """A job's progress is told."""
        if job_id not in self.jobs:
            return Refused(-1)
        self.jobs[job_id].progress = progress
        self._event("progress", job_id, data=progress)
        return None

    def log(self, seen: Seen, by_node: bool, job_id: str, row: str) -> int | Refused:
        """A line is logged; the answer is how many there are."""
        job = self.jobs.get(job_id)
        if job is None:
            return Refused(-1)
        job.logs = [*job.logs, row][-job.opts.get("kl", 0) :]
        return len(job.logs)

    def clear_logs(self, seen: Seen, by_node: bool, job_id: str, keep: int) -> None:
        """Lines are deleted."""
        if job_id in self.jobs:
            job = self.jobs[job_id]
            job.logs = job.logs[-keep:] if keep else []
