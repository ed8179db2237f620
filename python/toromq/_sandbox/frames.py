"""Frames between a worker and a child process: four bytes of length, then a JSON object."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
_CHUNK: Final = 1 << 18


class ChannelClosedError(Exception):
    """Nobody reads at the other end any more."""


class Channel:
    """One end of a stream. Any thread may send; one receives.

    The socket never blocks, since only so can a send that is stuck be given up: a child that stopped reads nothing.
    """

    def __init__(self, end: socket.socket) -> None:
        """Of a connected stream socket, which belongs to it from now on."""
        end.setblocking(False)
        self._end = end
        self._sending = threading.Lock()
        self._is_broken = False
        self._received = bytearray()

    def send(self, frame: Mapping[str, Any], timeout: float | None = None) -> None:
        """Send a frame, from any thread.

        Raises:
            ChannelClosedError: nobody reads it.
            TimeoutError: it was not taken within `timeout` seconds.
        """
        # Of ASCII, whatever the texts: a lone surrogate becomes an escape, and comes out as it was.
        text = json.dumps(frame, separators=(",", ":")).encode("ascii")
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._sending.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError
        try:
            if self._is_broken:
                raise ChannelClosedError
            self._write(memoryview(_LENGTH.pack(len(text)) + text), deadline)
        except BaseException:
            # If part of it was written, the other end would take whatever follows for the rest of it.
            self._is_broken = True
            raise
        finally:
            self._sending.release()

    def _write(self, rest: memoryview, deadline: float | None) -> None:
        while rest:
            try:
                rest = rest[self._end.send(rest) :]
            except BlockingIOError:
                if not _wait(self._end, select.POLLOUT, deadline):
                    raise TimeoutError from None
            except OSError:
                raise ChannelClosedError from None

    def receive(self) -> dict[str, Any] | None:
        """The next frame; None when the other end has closed, be it in the middle of a frame."""
        size = _LENGTH.size
        while len(self._received) < size or len(self._received) < size + _LENGTH.unpack_from(self._received)[0]:
            try:
                arrived = self._end.recv(_CHUNK)
            except BlockingIOError:
                _wait(self._end, select.POLLIN, None)
                continue
            except OSError:
                # A reset: it ended with something unread.
                return None
            if not arrived:
                return None
            self._received += arrived
        end = size + _LENGTH.unpack_from(self._received)[0]
        frame: dict[str, Any] = json.loads(self._received[size:end])
        del self._received[:end]
        return frame

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._is_broken

    def close(self) -> None:
        """Close this end; not while a thread receives from it."""
        with self._sending:
            self._is_broken = True
            self._end.close()

    def forget(self) -> None:
        """Close this end in a forked process, where nobody can be waited for."""
        self._is_broken = True
        self._end.close()


def _wait(end: socket.socket, event: int, deadline: float | None) -> bool:
    """Wait until the socket can be written to or read from; whether it can."""
    poll = select.poll()
    poll.register(end, event)
    left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    return bool(poll.poll(left))
