"""Conformance items 1-3: data, names and options survive the way from one implementation to the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.sides import MISSING

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio

_PAYLOADS: dict[str, Any] = {
    "object": {"user": 42, "to": "user@example.com"},
    "unicode": {"text": 'åäö € 漢字 🦬 \u2028 \u0000 "quoted" \\ /'},
    "nested": {"a": [1, [2, {"b": [None, True, False, {}]}], []], "": {"deep": {"deeper": {"deepest": "x"}}}},
    "numbers": [0, -1, 1.5, -0.25, 1e21, 1e-7, 9007199254740991],
    "text": "just text",
    "empty text": "",
    "number": 0,
    "false": False,
    "null": None,
    "empty object": {},
    "empty list": [],
}


@pytest.mark.parametrize("data", _PAYLOADS.values(), ids=_PAYLOADS.keys())
async def test_the_processor_sees_the_data_the_producer_gave(pair: Pair, data: Any) -> None:
    worker = await pair.b.worker("echo")
    job_id = await pair.a.add("any name / ünï", data)
    (completed,) = await worker.said("completed", job_id=job_id)
    (run,) = worker.runs(job_id)
    assert (run.name, run.data, completed.value) == ("any name / ünï", data, data)
    assert json.loads(pair.keys.hash(job_id)["data"]) == data
    assert json.loads(pair.keys.hash(job_id)["returnvalue"]) == data
    assert await pair.a.view(job_id) == await pair.b.view(job_id)


async def test_a_job_without_data_has_an_empty_object(pair: Pair) -> None:
    worker = await pair.b.worker("echo")
    job_id = await pair.a.add("bare", MISSING)
    await worker.said("completed", job_id=job_id)
    assert worker.runs(job_id)[0].data == {}
    assert pair.keys.hash(job_id)["data"] == "{}"


async def test_a_fresh_job_leaves_the_same_hash_as_one_of_node(side: Side, node: NodeSide, keys: QueueKeys) -> None:
    options = {"attempts": 3, "backoff": 500, "keep_logs": 7, "remove_on_fail": {"age": 10, "count": 5}, "lifo": True}
    mine, reference = await side.add("n", {"a": 1}, **options), await node.add("n", {"a": 1}, **options)
    assert keys.hash(mine) == keys.hash(reference)
    assert keys.hash(mine)["opts"] == {
        "attempts": 3,
        "backoff": {"type": "fixed", "delay": 500},
        "kl": 7,
        "removeOnFail": {"age": 10, "count": 5},
        "lifo": True,
    }
    assert keys.events(mine) == keys.events(reference) == [("added", {"name": "n"}), ("waiting", {})]


@pytest.mark.parametrize(
    "options", [{}, {"delay": 60_000}, {"priority": 4}], ids=["standard", "delayed", "prioritized"]
)
async def test_every_kind_of_job_leaves_the_same_hash_as_one_of_node(
    side: Side, node: NodeSide, keys: QueueKeys, options: dict[str, Any]
) -> None:
    mine, reference = await side.add("n", {}, **options), await node.add("n", {}, **options)
    (bulk,) = await side.add_bulk([("n", {}, options)])
    assert keys.hash(mine) == keys.hash(reference) == keys.hash(bulk)
    assert keys.names(mine) == keys.names(reference) == keys.names(bulk)


async def test_a_lone_surrogate_from_node_reaches_the_processor(pair: Pair, node: NodeSide) -> None:
    worker = await pair.b.worker("undefined")
    job_id = await node.add("n", {"text": "a\ud800b"})
    await worker.said("completed", job_id=job_id)
    assert worker.runs(job_id)[0].data["text"][0] == "a"


async def test_bulk_keeps_names_data_and_order(pair: Pair) -> None:
    jobs: list[tuple[str, Any, dict[str, Any]]] = [(f"n{number}", {"number": number}, {}) for number in range(50)]
    ids = await pair.a.add_bulk(jobs)
    assert ids == sorted(ids, key=int)
    worker = await pair.b.worker("echo")
    await worker.said("completed", count=50)
    assert [(run.job_id, run.name, run.data) for run in worker.runs()] == [
        (job_id, name, data) for job_id, (name, data, _) in zip(ids, jobs, strict=True)
    ]


async def test_the_whole_life_of_a_job_leaves_the_same_events(pair: Pair) -> None:
    worker = await pair.b.worker({"name": "value", "value": {"r": [1, 2]}}, name="w-1")
    job_id = await pair.a.add("n", {"a": 1})
    await worker.said("completed", job_id=job_id)
    result = pair.keys.events(job_id)[-1][1]
    assert pair.keys.events(job_id) == [
        ("added", {"name": "n"}),
        ("waiting", {}),
        ("active", {"prev": "waiting"}),
        ("completed", {"returnvalue": result["returnvalue"], "prev": "active"}),
    ]
    assert json.loads(result["returnvalue"]) == {"r": [1, 2]}
    fields = pair.keys.hash(job_id)
    assert json.loads(fields.pop("returnvalue")) == {"r": [1, 2]}
    assert json.loads(fields.pop("data")) == {"a": 1}
    assert fields == {
        "name": "n",
        "opts": {"attempts": 0},
        "timestamp": True,
        "delay": "0",
        "priority": "0",
        "processedOn": True,
        "finishedOn": True,
        "ats": "1",
        "atm": "1",
        "pb": "w-1",
    }
    assert pair.keys.list("completed") == [job_id]
