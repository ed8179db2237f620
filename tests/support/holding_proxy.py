"""A proxy before a server that holds back what one kind of connection says, to put events into an order of choice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any, Literal, Self

Kind = Literal["events", "other"]


class _Passage:
    """One connection through the proxy."""

    kind: Kind = "other"


class HoldingProxy:
    """Passes what clients say to a server and back.

    A connection that names itself as a reader of events is of the kind ``events``, all others are ``other``. What one
    kind is told can be held back, and what it says can be: then it waits here until it is let go.

    Args:
        target: The unix socket of the server.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._open: dict[tuple[Kind, str], asyncio.Event] = {}
        self._held: dict[tuple[Kind, str], int] = {}
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self.port}"

    def hold(self, kind: Kind, *, told: bool = False, said: bool = False) -> None:
        """Holds back what connections of a kind are told, or what they say, from now on."""
        for way, chosen in (("told", told), ("said", said)):
            if chosen:
                self._call(self._open[kind, way].clear)

    def let_go(self, kind: Kind) -> None:
        """Passes on what was held back."""
        for way in ("told", "said"):
            self._call(self._open[kind, way].set)

    def held(self, kind: Kind, way: Literal["told", "said"]) -> int:
        """How many pieces of one kind and way wait here."""
        return self._held[kind, way]

    def _call(self, action: Any) -> None:
        async def run() -> None:
            action()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    async def _start(self) -> None:
        for kind in ("events", "other"):
            for way in ("told", "said"):
                self._open[kind, way] = asyncio.Event()
                self._open[kind, way].set()
                self._held[kind, way] = 0
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passage = _Passage()
        async with contextlib.AsyncExitStack() as ends:
            ends.push_async_callback(self._end, writer)
            back, forth = await asyncio.open_unix_connection(str(self._target))
            ends.push_async_callback(self._end, forth)
            # Done when either side ends.
            ways = [
                asyncio.ensure_future(self._copy(passage, "said", reader, forth)),
                asyncio.ensure_future(self._copy(passage, "told", back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _end(self, end: asyncio.StreamWriter) -> None:
        end.close()
        with contextlib.suppress(OSError):
            await end.wait_closed()

    async def _copy(
        self, passage: _Passage, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if way == "said" and b"SETNAME" in data and b":qe" in data:
                passage.kind = "events"
            place = (passage.kind, way)
            self._held[place] += 1
            await self._open[place].wait()
            self._held[place] -= 1
            writer.write(data)
            await writer.drain()

    async def _stop(self) -> None:
        self._server.close()
        # Those that are just being accepted included.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
