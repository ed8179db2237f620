"""Other processes that use a server, and a hand on its data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Self, TypeVar

import redis

from tests.support.eventually import eventually
from toromq import server

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_USER = """
import sys
from toromq import server
used = server.connect(sys.argv[1])
print(used.pid, used.socket_path, flush=True)
sys.stdin.read()
"""


class User:
    """Another process that uses the server of a data directory until its stdin ends."""

    def __init__(self, path: Path, script: str = _USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read_line(self) -> str:
        """Wait for the next line the process prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the user process ended early"
        return line.strip()

    def server_pid(self) -> int:
        """Wait until the process is a user; return the process id of the server it got."""
        return int(self.read_line().split()[0])

    def leave(self) -> None:
        """End the process as a program normally ends."""
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """End the process with SIGKILL, so that no exit hook runs."""
        self.process.kill()
        self.process.communicate(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def write(used: server.EmbeddedServer | server.ServerStatus, key: str, value: str) -> None:
    """Set a key over the unix socket."""
    with redis.Redis(unix_socket_path=used.socket_path, protocol=2) as client:
        client.set(key, value)


def read(used: server.EmbeddedServer | server.ServerStatus, key: str) -> object:
    """Get a key over the unix socket."""
    with redis.Redis(unix_socket_path=used.socket_path, protocol=2, decode_responses=True) as client:
        return client.get(key)


def kill_server(path: Path) -> None:
    """End the server as a crash would, and wait until it is gone."""
    pid = server.status(path).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.status(path).pid is None)


def starts(path: Path) -> int:
    """How often a server was started in a data directory."""
    return (path / "server.log").read_text().count("just started")


def at_once(count: int, call: Callable[[], T]) -> list[T]:
    """Call something from several threads at the same moment."""
    together = Barrier(count)

    def run(_: int) -> T:
        together.wait(30)
        return call()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))
