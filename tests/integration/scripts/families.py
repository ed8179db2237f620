"""Parents and children that are put where a test needs them."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.scripts.commands import NOW, Queue


def named(parent: Queue, parent_id: str, flag: str = "") -> dict[str, str]:
    """Returns the fields by which a child names its parent."""
    described = {"id": parent_id, "queueKey": parent.base[:-1], **({flag: True} if flag else {})}
    return {"parentKey": parent.key(parent_id), "parent": json.dumps(described)}


def adopt(parent: Queue, parent_id: str, child: Queue, *child_ids: str, flag: str = "") -> None:
    """Makes jobs the pending children of another."""
    for child_id in child_ids:
        child.put(child_id, named(parent, parent_id, flag))
        parent.redis.sadd(parent.key(f"{parent_id}:dependencies"), child.key(child_id))


def waits(queue: Queue, *ids: str, **fields: Any) -> None:
    """Stores jobs that wait for their children."""
    for job_id in ids:
        queue.store(job_id, **fields)
        queue.redis.zadd(queue.key("waiting-children"), {job_id: NOW})
