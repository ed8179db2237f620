"""A way to a server on which one script call, or the reply to one, is lost for certain, and the connection with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Literal, Self


class LossyProxy:
    """Passes bytes on to a server's socket until it is told to lose something; then only that once.

    What is lost is the first script call that is sent from then on: the ``request``, which the server then never sees,
    or the ``reply`` to it.
    """

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._lose: Literal["request", "reply"] | None = None
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None] | None] = set()
        self.lost = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        """Starts to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cuts what is still open."""
        assert self._server is not None
        self._server.close()
        serving = [task for task in self._serving if task is not None and not task.done()]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    @contextlib.contextmanager
    def losing(self, what: Literal["request", "reply"]) -> Iterator[None]:
        """Loses this of one script call within, and insists that there was one."""
        before = self.lost
        self._lose = what
        yield
        assert self.lost == before + 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        # Closed whenever this is cancelled: an end that stays open would complain once its loop is closed, in whichever
        # test the interpreter happens to find it.
        with contextlib.ExitStack() as ends:
            ends.callback(writer.close)
            server_reader, server_writer = await asyncio.open_unix_connection(self._path)
            ends.callback(server_writer.close)
            await self._pass(reader, writer, server_reader, server_writer)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        cut = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(1 << 20):
                lose = self._lose if b"EVALSHA" in data else None
                if lose:
                    self._lose = None
                    self.lost += 1
                if lose == "reply":
                    cut.set()
                if lose != "request":
                    server_writer.write(data)
                    await server_writer.drain()
                if lose == "request":
                    return

        async def back() -> None:
            # What comes back once the cut was announced is the reply that is to be lost.
            while data := await server_reader.read(1 << 20):
                if cut.is_set():
                    return
                writer.write(data)
                await writer.drain()

        pipes = {asyncio.ensure_future(forward()), asyncio.ensure_future(back())}
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
