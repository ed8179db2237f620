"""What the examples of one test share."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis as redis_py

from tests.support.node_peer import NodePeer

T = TypeVar("T")


@dataclass
class Bench:
    """What all examples share: a server, a Node process, an event loop, and how much was done."""

    redis: redis_py.Redis
    url: str
    prefix: str
    peer: NodePeer
    loop: asyncio.AbstractEventLoop
    steps: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    examples: int = 0
    run_by_workers: int = 0
    names: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end."""
        return self.loop.run_until_complete(work)

    def report(self) -> str:
        """What was done."""
        by_client = ", ".join(f"{name} {count}" for name, count in sorted(self.steps.items()))
        return (
            f"{self.steps.total()} steps ({by_client}; {self.refused} of them refused) in {self.examples} examples; "
            f"{self.run_by_workers} jobs run by workers at their ends\n"
            + ", ".join(f"{name} {count}" for name, count in self.operations.most_common())
        )
