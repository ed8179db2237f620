"""The server as a person or a supervisor sees it: start it, stop it, look at it, without being one of its users."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toromq.errors import ConfigurationError, RedisConnectionError
from toromq.server.files import (
    PID_FILE,
    forget_keep_alive,
    log_tail,
    prepare_directory,
    read_keep_alive,
    read_pid_file,
    resolve,
    write_keep_alive,
)
from toromq.server.launcher import (
    START_TIMEOUT,
    STOP_TIMEOUT,
    ensure_running,
    shut_down,
    stop_command,
    wait_until_loaded,
)
from toromq.server.locks import is_held, start_lock
from toromq.server.process import opened
from toromq.server.wire import ServerReplyError, command, info, unix_url

if TYPE_CHECKING:
    import os
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known about the server of a data directory."""

    path: Path
    """The data directory, absolute."""
    running: bool
    """Whether a server answers."""
    problem: str | None = None
    """Why a server that exists does not answer, and what to do about it."""
    pid: int | None = None
    """The server's process id."""
    socket_path: str | None = None
    """The unix socket."""
    tcp_port: int | None = None
    """The port on 127.0.0.1, or ``None`` without TCP."""
    version: str | None = None
    """Name and version, such as ``valkey 9.1.2``."""
    used_memory: int | None = None
    """Bytes of memory the server has allocated."""
    clients: int | None = None
    """Connections, without the one that asked. One process usually has several."""
    aof: bool | None = None
    """Whether the append-only file is on and its last write succeeded."""
    keep_alive: bool = False
    """Whether the server goes on when its last user leaves."""

    @property
    def url(self) -> str | None:
        """The unix socket as a URL, or ``None`` when the server does not run."""
        return unix_url(self.socket_path) if self.running and self.socket_path else None

    @property
    def tcp_url(self) -> str | None:
        """The TCP port as a URL, or ``None`` without TCP."""
        return f"redis://127.0.0.1:{self.tcp_port}" if self.running and self.tcp_port else None


def start(path: str | os.PathLike[str] | None = None, port: int | None = None, keep_alive: bool = True) -> ServerStatus:
    """Start the server of a data directory without becoming one of its users.

    If it runs already, only what is missing is added: the TCP port, the keep-alive mark. Both stay in force until
    ``stop``, also when the server dies in between and a user starts it again.

    Args:
        path: the data directory. Default: ``.toromq``.
        port: also listen on this port of 127.0.0.1, 1 to 65535, so that tools without unix sockets can attach.
            Every local user can then connect. Default: no TCP.
        keep_alive: whether the server goes on when its last user leaves. With false, the next process that connects
            and leaves as the last one shuts it down.

    Raises as ``connect`` does; also ConfigurationError for an impossible port, and RedisConnectionError if the server
    cannot listen on it.
    """
    if port is not None and not 1 <= port <= 65535:
        raise ConfigurationError(f"port must be between 1 and 65535, not {port}")
    directory = prepare_directory(path)
    deadline = time.monotonic() + START_TIMEOUT
    with start_lock(directory, deadline):
        kept = read_keep_alive(directory)
        socket_path = ensure_running(directory, port or kept or 0, deadline)
        if keep_alive:
            # Before the lock goes: a user who leaves right now as the last one must see it.
            write_keep_alive(directory, kept or 0)
    wait_until_loaded(directory, socket_path)
    if port is not None:
        _listen_on(directory, socket_path, port)
        if keep_alive:
            # Only now: a port that cannot be had must not be remembered and fail every later start.
            write_keep_alive(directory, port)
    return status(directory)


def stop(path: str | os.PathLike[str] | None = None, *, timeout: float = STOP_TIMEOUT) -> bool:
    """Shut the server of a data directory down, whoever uses it, and forget ``keep_alive`` and the port.

    The data is flushed to disk first. Processes that still use the server lose their connections, and the next
    ``connect`` starts it again.

    Args:
        path: the data directory. Default: ``.toromq``.
        timeout: seconds for the server to end.

    Tells whether a server was running. Raises RedisConnectionError if it does not end in time; the message says how to
    force it.
    """
    directory = resolve(path)
    if not directory.is_dir():
        return False
    deadline = time.monotonic() + timeout
    with start_lock(directory, deadline):
        forget_keep_alive(directory)
        try:
            with opened(directory / PID_FILE) as probe:
                if not is_held(probe):
                    return False
                pid, socket_path = read_pid_file(probe)
                ended = shut_down(probe, socket_path, deadline)
        except FileNotFoundError:
            return False
    if not ended:
        raise RedisConnectionError(
            f"the server of embedded:{directory} (process {pid or 'unknown'}) did not end within {timeout:g} s. "
            f"It may be suspended or busy; end it with: kill -9 {pid or 'PID'}"
        )
    return True


def status(path: str | os.PathLike[str] | None = None) -> ServerStatus:
    """Look at the server of a data directory without changing anything, not even creating the directory."""
    directory = resolve(path)
    keep_alive = read_keep_alive(directory) is not None
    try:
        with opened(directory / PID_FILE) as probe:
            if not is_held(probe):
                return ServerStatus(path=directory, running=False, keep_alive=keep_alive)
            pid, socket_path = read_pid_file(probe)
    except (FileNotFoundError, NotADirectoryError):
        return ServerStatus(path=directory, running=False)
    try:
        found = info(socket_path)
    except (OSError, ServerReplyError) as error:
        return ServerStatus(
            path=directory,
            running=False,
            problem=f"process {pid or 'unknown'} holds {directory} but does not answer ({error}); "
            f"it may be starting, stopping or suspended.\n{log_tail(directory)}",
            pid=pid or None,
            socket_path=socket_path,
            keep_alive=keep_alive,
        )
    name = found.get("server_name") or ("valkey" if "valkey_version" in found else "redis")
    return ServerStatus(
        path=directory,
        running=True,
        pid=int(found.get("process_id", pid)),
        socket_path=socket_path,
        tcp_port=int(found.get("tcp_port", "0")) or None,
        version=f"{name} {found.get('valkey_version') or found.get('redis_version', 'of unknown version')}",
        used_memory=int(found.get("used_memory", "0")),
        clients=max(0, int(found.get("connected_clients", "1")) - 1),
        aof=found.get("aof_enabled") == "1" and found.get("aof_last_write_status", "ok") == "ok",
        keep_alive=keep_alive,
    )


def _listen_on(directory: Path, socket_path: str, port: int) -> None:
    try:
        if info(socket_path).get("tcp_port") == str(port):
            return
        command(socket_path, "CONFIG", "SET", "port", str(port))
    except (OSError, ServerReplyError) as error:
        raise RedisConnectionError(
            f"the running server of embedded:{directory} cannot listen on 127.0.0.1:{port} ({error}). "
            f"Take another port, or restart the server: {stop_command(directory)}, then start it again "
            "with --port (servers before Redis 7 cannot change their port while they run)."
        ) from error
