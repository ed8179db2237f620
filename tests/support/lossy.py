"""A way to a server on which replies get lost: the command was done, and nobody hears of it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from toromq import _native

How = Literal["request", "reply", "silence"]
"""What gets lost: the request, or the reply to it, and the connection with it; or the reply alone, without a word."""


class LossyProxy:
    """Passes everything on, but for the replies it is told to lose."""

    def __init__(self, url: str) -> None:
        """To the server at ``url``."""
        server = urlsplit(url)
        self._server = (server.hostname, server.port)
        self._db = server.path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._doomed: list[tuple[bytes, How]] = []
        self._swallowed: set[bytes] = set()
        self.swallowed = 0
        """How many requests the server never saw."""
        self.lost = 0
        """How many replies were lost so far, and requests together with their connection."""

    @property
    def url(self) -> str:
        """Where to connect to."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}{self._db}"

    def lose(self, command: str, times: int = 1, *, cut: bool = True) -> None:
        """Loses the replies to the next calls of a Lua command: cuts the connection, or lets it wait for ever."""
        source = next(source for name, source, *_ in _native.scripts() if name == command)
        sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        with self._guard:
            self._doomed += [(sha1.encode(), "reply" if cut else "silence")] * times

    def lose_answer_to(self, word: str, *, cut: bool = True) -> None:
        """Loses the reply to the next request with this word in it: cuts the connection, or lets it wait for ever."""
        with self._guard:
            self._doomed.append((word.encode(), "reply" if cut else "silence"))

    @contextlib.contextmanager
    def losing(self, what: Literal["request", "reply"]) -> Iterator[None]:
        """Loses this of the first script call within, whichever it is, and insists that there was one."""
        before = self.lost
        with self._guard:
            self._doomed.append((b"EVALSHA", what))
        yield
        assert self.lost == before + 1

    def swallow(self, command: str) -> None:
        """Lets no call of a Lua command reach the server from now on; whoever sent it waits."""
        source = next(source for name, source, *_ in _native.scripts() if name == command)
        with self._guard:
            self._swallowed.add(hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode())

    def _is_swallowed(self, request: bytes) -> bool:
        with self._guard:
            found = any(sha1 in request for sha1 in self._swallowed)
            self.swallowed += found
            return found

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="lossy", daemon=True).start()
        return self

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shut(self._listener, *self._sockets)

    def _shut(self, *sockets: socket.socket) -> None:
        for one in sockets:
            # Wakes whoever reads from it, which closing alone does not.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets |= {client, server}
                way = _Way(self, client, server)
                for target in (way.requests, way.replies):
                    threading.Thread(target=target, name="lossy", daemon=True).start()

    def _doom(self, request: bytes) -> How | None:
        """What is to be lost of this request; None for nothing."""
        with self._guard:
            for n, (called, how) in enumerate(self._doomed):
                if called in request:
                    del self._doomed[n]
                    return how
        return None


class _Way:
    """One connection through the proxy."""

    def __init__(self, proxy: LossyProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._losing: How | None = None

    def requests(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(1 << 20):
                if self._proxy._is_swallowed(data):
                    continue
                self._losing = self._losing or self._proxy._doom(data)
                if self._losing == "request":
                    self._proxy.lost += 1
                    break
                self._server.sendall(data)
        self._proxy._shut(self._client, self._server)

    def replies(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(1 << 20):
                if self._losing is None:
                    self._client.sendall(data)
                    continue
                if self._losing == "request":
                    # An answer to an earlier one. The connection ends.
                    break
                self._proxy.lost += 1
                if self._losing == "reply":
                    break
        self._proxy._shut(self._client, self._server)
