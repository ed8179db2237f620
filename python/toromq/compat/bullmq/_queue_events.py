"""bullmq's QueueEvents and QueueEventsProducer."""

from __future__ import annotations

from typing import Any

from toromq.compat.bullmq._adapter import EventEmitter, NotSupportedError
from toromq.compat.bullmq._options import Opts

_MISSING = "toromq has no reader of a queue's events yet"


class QueueEvents(EventEmitter):
    """Tells what happens to a queue, whoever does it. Not there yet: making one raises NotSupportedError."""

    def __init__(self, name: str, opts: Opts = None) -> None:
        super().__init__()
        raise NotSupportedError(f"QueueEvents: {_MISSING}")

    async def run(self) -> None:
        """Not there yet."""
        raise NotSupportedError(f"QueueEvents: {_MISSING}")

    async def close(self) -> None:
        """Not there yet."""


class QueueEventsProducer:
    """Publishes events of a queue. Not there yet: making one raises NotSupportedError."""

    def __init__(self, name: str, opts: Opts = None) -> None:
        raise NotSupportedError("QueueEventsProducer: toromq can't publish events of its own yet")

    async def publishEvent(self, args: dict[str, Any], maxEvents: int = 1000) -> None:
        """Not there yet."""

    async def close(self) -> None:
        """Not there yet."""
