"""Keeping an embedded server up for a long-lived process: when it dies, it is started again at once.

A thread waits on a connection that never says anything. Its end means that the server's process is gone. A server that
was asked to stop has removed its socket by then, and is left alone.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from toromq._bridge import after_shutdown
from toromq.errors import ToroError

if TYPE_CHECKING:
    from toromq.server.embedded import EmbeddedServer
    from toromq.server.process import Membership

_RETRY: Final = 1.0
"""Seconds between two looks at a server that was stopped or can't be started."""

log = logging.getLogger("toromq")
_watched: set[tuple[int, Membership]] = set()
_ending = threading.Event()
# The newest first: before the servers are left, so that no end is mistaken for a death.
after_shutdown(_ending.set)


def watch(server: EmbeddedServer) -> None:
    """Start the server again whenever it dies, as long as this process lives. One thread for each server."""
    key = (os.getpid(), server._membership)
    if key in _watched:
        return
    _watched.add(key)
    threading.Thread(target=_watch, args=(server,), name="toromq-server-watcher", daemon=True).start()


def _watch(server: EmbeddedServer) -> None:
    stopped = False
    while True:
        _wait_for_the_end(server.socket_path)
        if _ending.is_set():
            return
        if not server._membership.is_current():
            # The directory was deleted, and its data with it; who connects again gets a new server and a new watcher.
            return
        if os.path.exists(server.socket_path):
            stopped = False
            try:
                server.ensure()
            except ToroError as error:
                log.error("the server of embedded:%s died and can't be started again: %s", server.path, error)
                time.sleep(_RETRY)
        else:
            if not stopped:
                log.warning("the server of embedded:%s was stopped; `toromq server start` starts it", server.path)
            stopped = True
            time.sleep(_RETRY)


def _wait_for_the_end(socket_path: str) -> None:
    """Return when the server has closed a connection, or could not be connected to."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(socket_path)
            connection.recv(1)
    except OSError:
        return
