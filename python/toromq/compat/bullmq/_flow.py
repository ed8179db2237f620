"""bullmq's FlowProducer."""

from __future__ import annotations

from typing import Any

from toromq.compat.bullmq._adapter import EventEmitter, NotSupportedError
from toromq.compat.bullmq._options import Opts, queue_options

_MISSING = "toromq has no flows yet"


class FlowProducer(EventEmitter):
    """Adds trees of jobs. toromq has no flows yet: adding raises NotSupportedError."""

    def __init__(self, redisOpts: dict[str, Any] | str | None = None, opts: Opts = None) -> None:
        super().__init__()
        given = {**(opts or {}), **({} if redisOpts is None else {"connection": redisOpts})}
        queue_options(given)
        self.opts = given
        self.prefix = given.get("prefix", "bull")
        self.closing = False

    async def add(self, flow: dict[str, Any], opts: Opts = None) -> dict[str, Any] | None:
        """Not there yet."""
        raise NotSupportedError(f"FlowProducer.add: {_MISSING}")

    async def addBulk(self, flows: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Not there yet."""
        raise NotSupportedError(f"FlowProducer.addBulk: {_MISSING}")

    async def close(self) -> None:
        """Close its connection."""
        self.closing = True

    async def disconnect(self) -> None:
        """The same."""
        await self.close()
