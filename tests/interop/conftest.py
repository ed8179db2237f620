"""Three implementations on one queue: Node BullMQ, and our async and our blocking face.

Every test gets each of ours with Node in both directions, and Node against Node.

That last pair is the control: it proves of every expectation in this folder that the reference itself meets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurBlockingSide, OurSide
from tests.interop.sides import Side
from tests.support.node_peer import NodePeer, require_node

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox


@dataclass(frozen=True)
class Pair:
    """Two sides of one queue: ``a`` produces and ``b`` works, where a test tells them apart."""

    a: Side
    b: Side
    keys: QueueKeys


@pytest.fixture(scope="session")
def _node(redisbox: RedisBox) -> Iterator[list[NodePeer]]:
    """One Node process for all tests; in a list, so that a test may find it dead and replace it."""
    require_node()
    running: list[NodePeer] = []
    yield running
    for peer in running:
        asyncio.run(peer.close())


@pytest_asyncio.fixture
async def peer(_node: list[NodePeer], redisbox: RedisBox, prefix: str) -> AsyncIterator[NodePeer]:
    """The Node process, using this test's prefix, with nothing open in it."""
    if not _node or not _node[-1].running:
        _node.append(await NodePeer.start(redisbox.unix_url, prefix))
    shared = _node[-1]
    await shared.reset()
    await shared.use(redisbox.unix_url, prefix)
    yield shared
    await shared.reset()


@pytest.fixture
def queue_name() -> str:
    """The name of the queue under test; the prefix makes it unique."""
    return "mail"


@pytest.fixture
def keys(redis: redis_py.Redis, prefix: str, queue_name: str) -> QueueKeys:
    """The raw keys of the queue under test."""
    return QueueKeys(redis, prefix, queue_name)


@pytest_asyncio.fixture
async def node(peer: NodePeer, redisbox: RedisBox, prefix: str, queue_name: str) -> AsyncIterator[NodeSide]:
    """The queue through Node."""
    side = await NodeSide(peer, redisbox.unix_url, prefix, queue_name).start()
    yield side
    await side.close()


@pytest_asyncio.fixture
async def toromq(redisbox: RedisBox, prefix: str, queue_name: str) -> AsyncIterator[OurSide]:
    """The queue through our async face."""
    side = OurSide(redisbox.unix_url, prefix, queue_name)
    yield side
    await side.close()


@pytest_asyncio.fixture
async def sync(redisbox: RedisBox, prefix: str, queue_name: str) -> AsyncIterator[OurBlockingSide]:
    """The queue through our blocking face."""
    side = OurBlockingSide(redisbox.unix_url, prefix, queue_name)
    yield side
    await side.close()


@pytest.fixture(params=["toromq", "sync"])
def ours(request: pytest.FixtureRequest) -> OurSide:
    """Each of our faces alone, where only they promise something."""
    chosen: OurSide = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=["toromq", "sync", "node"])
def side(request: pytest.FixtureRequest, node: NodeSide) -> Side:
    """Each implementation alone. Node is there in any case, to look at what the other did."""
    chosen: Side = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=["toromq-node", "node-toromq", "sync-node", "node-sync", "node-node", "toromq-toromq"])
def pair(request: pytest.FixtureRequest, node: NodeSide, keys: QueueKeys) -> Pair:
    """Two sides in every direction; Node is there in any case, to look at what the others did."""
    first, second = (request.getfixturevalue(name) for name in request.param.split("-"))
    return Pair(first, second, keys)
