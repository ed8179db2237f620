"""Adding jobs, and the jobs that give way to others."""

from __future__ import annotations

from typing import Any

from tests.property.model.facts import FLAGS, Add, Flow, Impossible, Job, Refused, Seen, Text
from tests.property.model.families import Families


class Adding(Families):
    """What producers do."""

    # -- Adding --

    def add(self, seen: Seen, by_node: bool, job: Add) -> str | Refused:
        """A job is added; the answer is the id it has now."""
        return self._add(seen, job, seen.answer)

    def add_bulk(self, seen: Seen, by_node: bool, jobs: list[Add]) -> list[str | Refused]:
        """Many jobs are added, as if one by one."""
        if not isinstance(seen.answer, list) or len(seen.answer) != len(jobs):
            raise Impossible(f"{len(jobs)} jobs got the ids {seen.answer}")
        return [self._add(seen, job, answer) for job, answer in zip(jobs, seen.answer, strict=True)]

    def _add(self, seen: Seen, job: Add, answer: Any) -> str | Refused:
        job_id: Any = job.options.get("job_id")
        parent = job.options.get("parent")
        if parent is not None and parent["id"] not in self.jobs:
            return Refused(-5)
        if job_id in self.jobs:
            refusal = None if parent is None else self._attach(seen, job_id, job)
            if refusal is not None:
                return refusal
            self._event("duplicated", job_id)
            return str(job_id)
        new_id = Text() if job_id is None else job_id
        stored = job.stored
        rule = stored.get("de")
        if rule is not None:
            owner = self._deduplicate(rule, new_id, job, seen, answer)
            if owner is not None:
                return owner
        if job_id is None:
            job_id = answer
            if new_id != job_id or job_id in self.jobs:
                raise Impossible(f"the new job got the id {job_id!r}")
        if rule is not None:
            self.owners[rule["id"]] = (job_id, self.owners[rule["id"]][1])
        timestamp = job.options.get("timestamp") or seen.stamp(job_id, "timestamp")
        delay, priority = job.options.get("delay", 0), job.options.get("priority", 0)
        self._store(job_id, Job(job.name, job.data, stored, timestamp, delay, priority, deid=rule and rule["id"]))
        self._enqueue(job_id, timestamp)
        if parent is not None:
            self._link(job_id, job)
            self.jobs[parent["id"]].pending.add(job_id)
        return str(job_id)

    def add_flow(self, seen: Seen, by_node: bool, flow: Flow) -> None:
        """A tree of new jobs is added, level by level."""
        level = [flow]
        while level:
            for node in level:
                job_id, stored = node.job.options["job_id"], node.job.stored
                timestamp = seen.stamp(job_id, "timestamp")
                delay, priority = node.job.options.get("delay", 0), node.job.options.get("priority", 0)
                self._store(job_id, Job(node.job.name, node.job.data, stored, timestamp, delay, priority))
                if node.children:
                    self.zsets["waiting-children"][job_id] = timestamp
                    self._event("waiting-children", job_id)
                else:
                    self._enqueue(job_id, timestamp)
                if "parent" in stored:
                    self._link(job_id, node.job)
                    self.jobs[stored["parent"]["id"]].pending.add(job_id)
            level = [child for node in level for child in node.children]

    def _attach(self, seen: Seen, job_id: str, job: Add) -> Refused | None:
        parent_id = job.options["parent"]["id"]
        if self._living_parent(job_id) is not None and self.parent_of(job_id) != parent_id:
            return Refused(-7)
        if job_id in self.zsets["completed"]:
            self.jobs[parent_id].processed[job_id] = self.jobs[job_id].returnvalue
            self._release_if_done(seen, parent_id)
        else:
            self.jobs[parent_id].pending.add(job_id)
        self._link(job_id, job)
        return None

    def _link(self, job_id: str, job: Add) -> None:
        stored = job.stored
        parent_id = stored["parent"]["id"]
        flags = {name: True for name in FLAGS if stored.get(name) is True}
        self.jobs[job_id].parent = {"id": parent_id, "queueKey": self.base[:-1], **flags}
        self.jobs[job_id].parentKey = self.base + parent_id

    # -- Deduplication --

    def _deduplicate(
        self, rule: dict[str, Any], new_id: str | Text, job: Add, seen: Seen, answer: Any
    ) -> str | None:
        """The owner that the new job gives way to, or None when it may be added and owns the id now."""
        key, keep_last = rule["id"], rule.get("keepLastIfActive") is True
        expires = rule.get("ttl", 0) > 0 and not keep_last
        owner, owner_expires = self.owners.get(key, (None, False))
        if owner is None:
            self.owners[key] = ("", expires)
            return None
        delayed = owner in self.zsets["delayed"]
        if rule.get("replace") is True and delayed:
            del self.zsets["delayed"][owner]
            del self.jobs[owner]
            self._event("removed", owner, prev="delayed")
            self._event("deduplicated", answer, deduplicationId=key, deduplicatedJobId=owner)
            self.kept_back.pop(key, None)
            keeps_ttl = expires and rule.get("extend") is not True
            self.owners[key] = ("", owner_expires if keeps_ttl else expires)
            return None
        if not owner_expires and owner not in self.jobs:
            self.kept_back.pop(key, None)
            self.owners[key] = ("", expires)
            return None
        if keep_last and owner in self.lists["active"]:
            self.kept_back[key] = (new_id, job)
            self.owners[key] = (owner, False)
            self._event("deduplicated", owner, deduplicationId=key, deduplicatedJobId=new_id)
            return owner
        if rule.get("replace") is True:
            return owner
        if rule.get("extend") is True and rule.get("ttl", 0) > 0:
            self.owners[key] = (owner, expires)
        self._event("deduplicated", owner, deduplicationId=key, deduplicatedJobId=new_id)
        if rule.get("reschedule") is True and delayed:
            delay = job.options.get("delay", 0)
            del self.zsets["delayed"][owner]
            timestamp = job.options.get("timestamp")
            self._delay_until(owner, seen.due(owner, delay) if timestamp is None else timestamp + delay)
            self.jobs[owner].delay = delay
            self._mark_delay()
        return owner

    def _end_deduplication(self, job_id: str, seen: Seen) -> None:
        key = self.jobs[job_id].deid
        if key is None:
            return
        if self.owners.get(key) == (job_id, False):
            del self.owners[key]
        if key not in self.kept_back:
            return
        next_id, job = self.kept_back.pop(key)
        if isinstance(next_id, Text):
            found = seen.keys.get(f"de:{key}")
            next_id = "" if found is None else found.value
            if next_id in self.jobs or Text() != next_id:
                raise Impossible(f"the job that was kept back got the id {next_id!r}")
        self.owners[key] = (next_id, False)
        timestamp = seen.stamp(next_id, "timestamp")
        delay, priority = job.options.get("delay", 0), job.options.get("priority", 0)
        self._store(next_id, Job(job.name, job.data, job.stored, timestamp, delay, priority, deid=key))
        self._enqueue(next_id, timestamp)

    def remove_deduplication_key(self, seen: Seen, by_node: bool, key: str) -> bool:
        """An id is given free; the answer is whether a job owned it."""
        return self.owners.pop(key, None) is not None
