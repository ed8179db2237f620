"""Adds trees of jobs, runs them, and looks at what parents learn of their children."""

import asyncio
from typing import Any

from bullmq import FlowProducer, Job, Queue, Worker


def _shown(node: dict[str, Any]) -> list[Any]:
    job = node["job"]
    own_id = job.id if job.opts.get("jobId") else ""
    return [own_id, job.name, job.data, job.queue.name, job.opts["attempts"], job.delay, job.priority,
            sorted(node), [_shown(child) for child in node.get("children", [])]]  # fmt: skip


async def _ends(queue: Queue, job_id: str, state: str) -> None:
    for _ in range(1000):
        if await queue.getJobState(job_id) == state:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{job_id} is {await queue.getJobState(job_id)}")


async def main(connection: Any, prefix: str, say: Any) -> None:
    opts = {"connection": connection, "prefix": prefix}
    flow = FlowProducer(connection, {"prefix": prefix})
    parents, pages = Queue("parents", opts), Queue("pages", opts)
    say("producer", [flow.prefix == prefix, flow.closing])

    children: list[dict[str, Any]] = [
        {"name": "good", "queueName": "pages", "data": {"n": 1}, "opts": {"jobId": "good"}},
        {"name": "bad", "queueName": "pages", "data": {}, "opts": {"jobId": "bad", "ignoreDependencyOnFailure": True}},
        {"name": "deep", "queueName": "parents", "opts": {"jobId": "deep"}, "children": [
            {"name": "leaf", "queueName": "pages", "data": {"n": 2}, "opts": {"jobId": "leaf", "attempts": 2}},
            {"name": "far", "queueName": "pages", "prefix": f"{prefix}:far", "opts": {"jobId": "far"}},
        ]},
    ]  # fmt: skip
    tree = await flow.add(
        {"name": "top", "queueName": "parents", "data": {"a": 1}, "opts": {"jobId": "top"}, "children": children},
        {"queuesOptions": {"parents": {"defaultJobOptions": {"attempts": 3}}}},
    )
    assert tree
    say("tree", _shown(tree))
    child = tree["children"][0]["job"]
    say("child", [child.parent == {"id": "top", "queueKey": f"{prefix}:parents"},
                  child.parentKey == f"{prefix}:parents:top", child.opts["parent"] == {"id": "top",
                  "queue": f"{prefix}:parents"}])  # fmt: skip
    say("states", [await queue.getJobState(name) for queue, name in
                   ((parents, "top"), (pages, "good"), (parents, "deep"), (pages, "leaf"))])  # fmt: skip
    say("order", [job.id for job in await pages.getWaiting()])

    async def page(job: Job, token: str) -> Any:
        if job.name == "bad":
            raise ValueError("no page")
        return ["page", job.data]

    async def parent(job: Job, token: str) -> Any:
        values = await job.getChildrenValues()
        return sorted(str(value) for value in values.values())

    workers = [Worker("pages", page, opts), Worker("parents", parent, opts)]
    workers.append(Worker("pages", page, {**opts, "prefix": f"{prefix}:far"}))
    await _ends(parents, "top", "completed")
    top = await parents.getJob("top")
    say("result", [top.returnvalue, top.attemptsMade])
    deep = await parents.getJob("deep")
    say("deep", deep.returnvalue)

    other = {"name": "other", "queueName": "pages", "data": {}, "opts": {"jobId": "fresh"}}
    again = await flow.add(
        {"name": "again", "queueName": "parents", "data": {}, "opts": {"jobId": "again"}, "children": [other]}
    )
    assert again
    await _ends(parents, "again", "completed")
    say("again", _shown(again))
    for worker in workers:
        await worker.close()

    trees = await flow.addBulk([
        {"name": "one", "queueName": "parents", "children": [{"name": "c", "queueName": "pages", "data": [1]}]},
        {"name": "two", "queueName": "parents", "opts": {"priority": 2}},
    ])  # fmt: skip
    say("bulk", [_shown(tree) for tree in trees or []])
    say("none", await flow.addBulk([]))
    say("counts", await parents.getJobCounts("waiting-children", "prioritized", "waiting", "completed"))
    try:
        await flow.add({"name": "x", "queueName": "parents", "opts": {"parent": {"id": "y", "queue": f"{prefix}:q"}}})
    except Exception as error:
        say("refused", str(error).count("does not exist") + str(error).startswith("Missing key for parent job"))
    await flow.close()
    say("closed", flow.closing)
    await parents.close()
    await pages.close()
