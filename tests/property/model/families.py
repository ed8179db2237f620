"""Parents and children of one queue: what the end, the removal and the return of one mean for the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.property.model.base import Base
from tests.property.model.facts import FLAGS, SLOTS, Impossible, Job, Refused, Seen


class Families(Base):
    """The tree that jobs stand in. Ids stand for full keys, because all are of one queue."""

    # -- Looking --

    def parent_of(self, job_id: str) -> str | None:
        """The id of a job's parent, which may be gone."""
        parent = self.jobs[job_id].parent
        return None if parent is None else str(parent["id"])

    def is_above(self, job_id: str, other: str) -> bool:
        """Whether a job is another one, or stands above it."""
        above: str | None = other
        while above is not None and above != job_id:
            above = self.parent_of(above) if above in self.jobs else None
        return above == job_id

    def _living_parent(self, job_id: str) -> Job | None:
        return self.jobs.get(self.parent_of(job_id) or "")

    # -- A child ends --

    def _child_completed(self, seen: Seen, job_id: str, value: Any) -> None:
        parent = self._living_parent(job_id)
        if parent is not None and job_id in parent.pending:
            parent.pending.remove(job_id)
            parent.processed[job_id] = value
            self._release_if_done(seen, str(self.parent_of(job_id)))

    def _child_failed(self, seen: Seen, job_id: str, reason: str) -> None:
        parent_id, parent = self.parent_of(job_id), self._living_parent(job_id)
        link = self.jobs[job_id].parent or {}
        flag = next((name for name in FLAGS if link.get(name) is True), None)
        if flag is None or parent is None or parent_id is None or job_id not in parent.pending:
            return
        parent.pending.remove(job_id)
        if flag == "fpof":
            parent.unsuccessful.add(job_id)
            waits = self.zsets["waiting-children"].pop(parent_id, None) is not None
            if not waits and self.zsets["delayed"].pop(parent_id, None) is not None:
                parent.delay = 0
                waits = True
            if waits or parent_id not in self.zsets["failed"]:
                parent.defa = f"child {self.base}{job_id} failed"
            if waits:
                self._release(seen, parent_id)
        elif flag == "cpof":
            parent.ignored[job_id] = reason
            self._release_if_waiting(seen, parent_id)
        else:
            if flag == "idof":
                parent.ignored[job_id] = reason
            self._release_if_done(seen, parent_id)

    def _release_if_done(self, seen: Seen, parent_id: str) -> None:
        if not self.jobs[parent_id].pending:
            self._release_if_waiting(seen, parent_id)

    def _release_if_waiting(self, seen: Seen, parent_id: str) -> None:
        if self.zsets["waiting-children"].pop(parent_id, None) is not None:
            self._release(seen, parent_id)

    def _release(self, seen: Seen, parent_id: str) -> None:
        parent = self.jobs[parent_id]
        if parent.delay > 0:
            # Without looking for a slot of its own.
            due = seen.due(parent_id, parent.delay)
            self.zsets["delayed"][parent_id] = due * SLOTS
            self._event("delayed", parent_id, delay=str(due))
            self._mark_delay()
        else:
            self._wait(parent_id, first=True)
            self._event("waiting", parent_id, prev="waiting-children")

    # -- A child goes, or comes back --

    def _detach(self, job_id: str, parent_id: str | None) -> None:
        """A job goes away by itself; a parent left without pending children is the next to run, whatever it is."""
        parent = self.jobs.get(parent_id or "")
        if parent is None or parent_id is None or job_id not in parent.pending:
            return
        parent.pending.remove(job_id)
        if not parent.pending and self.zsets["waiting-children"].pop(parent_id, None) is not None:
            self._push(parent_id, first=True)
            self._mark_base()
            self._event("waiting", parent_id, prev="waiting-children")

    def _forget(self, job_id: str) -> None:
        """A finished job is no longer kept."""
        if self._living_parent(job_id) is not None:
            self._detach(job_id, self.parent_of(job_id))
        self._leave(job_id)
        del self.jobs[job_id]

    def _clear_away(self, by_node: bool, job_id: str) -> None:
        """A job goes with many others; a parent that waits for nothing else goes as well, and so on up the tree."""
        parent_id, parent = self.parent_of(job_id), self._living_parent(job_id)
        if parent is not None and parent_id is not None and job_id in parent.pending:
            parent.pending.remove(job_id)
            if not parent.pending and parent_id in self.zsets["waiting-children"]:
                owners, kept_back = dict(self.owners), dict(self.kept_back)
                self._clear_away(by_node, parent_id)
                if by_node:  # It leaves the deduplication id of a parent that goes so to a job that is no more.
                    self.owners, self.kept_back = owners, kept_back
        self._leave(job_id)
        self._drop_deduplication(job_id)
        del self.jobs[job_id]

    def _child_back(self, job_id: str, state: str) -> None:
        parent = self._living_parent(job_id)
        if parent is None:
            return
        if state == "completed":
            was_done = parent.processed.pop(job_id, ...) is not ...
        else:
            was_done = job_id in parent.unsuccessful or job_id in parent.ignored
            parent.unsuccessful.discard(job_id)
            parent.ignored.pop(job_id, None)
        if was_done:
            parent.pending.add(job_id)

    # -- Operations --

    def remove(self, seen: Seen, by_node: bool, job_id: str, children: bool) -> bool:
        """A job is deleted, and those below it, unless a worker has one of them."""
        if self._is_locked(job_id, children):
            return False
        parent_id = self.parent_of(job_id) if job_id in self.jobs else None
        self._remove(job_id, self._all_below if children else self._none_below, parent_id)
        return True

    def _is_locked(self, job_id: str, children: bool) -> bool:
        job = self.jobs.get(job_id)
        if job is None:
            return False
        return job.lock is not None or (children and any(self._is_locked(child, True) for child in job.pending))

    def _none_below(self, job_id: str) -> list[str]:
        return []

    def _all_below(self, job_id: str) -> list[str]:
        job = self.jobs[job_id]
        return [*job.processed, *job.ignored, *job.unsuccessful, *job.pending]

    def _pending_below(self, job_id: str) -> list[str]:
        pending = [child for child in self.jobs[job_id].pending if child in self.jobs]
        return [child for child in pending if self.jobs[child].lock is None and child not in self.zsets["failed"]]

    def _remove(self, job_id: str, below: Callable[[str], list[str]], parent_id: str | None) -> None:
        if job_id not in self.jobs:
            return
        self._detach(job_id, parent_id)
        for child in below(job_id):
            self._remove(child, below, job_id)
        prev = self.state(job_id)
        self._leave(job_id)
        self._drop_deduplication(job_id)
        del self.jobs[job_id]
        self._event("removed", job_id, prev=prev)

    def remove_unprocessed_children(self, seen: Seen, by_node: bool, job_id: str) -> None:
        """Pending children of a job are deleted, and those below them, but for the ones that run or have failed."""
        for child in self._pending_below(job_id) if job_id in self.jobs else ():
            self._remove(child, self._pending_below, job_id)

    def remove_child_dependency(self, seen: Seen, by_node: bool, job_id: str) -> bool | Refused:
        """A job's parent no longer waits for it; the answer is whether it did."""
        job = self.jobs.get(job_id)
        if job is None:
            return Refused(-1)
        parent = self._living_parent(job_id)
        if parent is None:
            return Refused(-5)
        if job_id not in parent.pending:
            return False
        self._detach(job_id, self.parent_of(job_id))
        job.parent = job.parentKey = None
        return True

    def move_to_waiting_children(self, seen: Seen, by_node: bool, job_id: str, token: str) -> bool | Refused:
        """A worker's job waits for its children; the answer is whether there are any."""
        job = self.jobs.get(job_id)
        if job is None:
            return Refused(-1)
        if job.unsuccessful:
            return Refused(-9)
        if not job.pending:
            return False
        refusal = self._unlock(job_id, token)
        if refusal is not None:
            return refusal
        found = seen.keys.get("waiting-children")
        since = None if found is None else found.value.get(job_id)
        if since is None or not seen.before <= since <= seen.after:
            raise Impossible(f"job {job_id} waits for its children since {since}")
        self.zsets["waiting-children"][job_id] = int(since)
        self._event("waiting-children", job_id, prev="active")
        return True
