"""Using an embedded server: joining it, being one of its users, and leaving it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final, Self

from toromq._bridge import after_shutdown
from toromq.errors import ConfigurationError, ToroError
from toromq.server.files import (
    PID_FILE,
    USERS_LOCK,
    is_same_file,
    prepare_directory,
    read_keep_alive,
    read_pid_file,
)
from toromq.server.launcher import START_TIMEOUT, STOP_TIMEOUT, ensure_running, shut_down, wait_until_loaded
from toromq.server.locks import is_held, lock_until, start_lock, try_lock
from toromq.server.process import Membership, close_file, current_state, open_file
from toromq.server.wire import ServerReplyError, info, ping, unix_url

if TYPE_CHECKING:
    from pathlib import Path

_EXIT_LOCK_TIMEOUT: Final = 2.0
"""Seconds an exiting process waits for its turn. Giving up is harmless: the next user to leave does the rest."""


def connect(path: str | os.PathLike[str] | None = None, *, timeout: float = START_TIMEOUT) -> EmbeddedServer:
    """Join the server of a data directory, and start it first if it does not run.

    Any number of processes and threads may do this at the same moment: one of them starts the server. The process
    stays a user until every handle it got for this directory is released, or until it ends, however it ends. A server
    that died is started again by the next call, with its data.

    This call blocks while the server starts or reads its data back; in a coroutine, use ``asyncio.to_thread``.

    Args:
        path: the data directory; created with mode 0700 if missing. ``~`` is expanded. Default: ``.toromq``.
        timeout: seconds until the server must have answered.

    Raises ConfigurationError if no server program is installed or the directory cannot serve for this, and
    RedisConnectionError if the server does not come up; the message ends with its last log lines.

    Example:
        >>> with connect("/var/lib/myapp/queue") as server:  # doctest: +SKIP
        ...     print(server.url)
        unix:///var/lib/myapp/queue/v.sock
    """
    return EmbeddedServer(_acquire(prepare_directory(path), timeout))


class EmbeddedServer:
    """One use of an embedded server by this process. Made by ``connect``; also a context manager."""

    def __init__(self, membership: Membership) -> None:
        """Wrap a membership that ``connect`` has already counted up."""
        self._membership = membership
        self._state = current_state()
        self._released = False

    @property
    def path(self) -> Path:
        """The data directory, absolute."""
        return self._membership.directory

    @property
    def socket_path(self) -> str:
        """The server's unix socket."""
        return self._membership.socket_path

    @property
    def url(self) -> str:
        """The URL to connect to, ``unix:///...``; unusual characters in the path are percent-encoded."""
        return unix_url(self.socket_path)

    @property
    def pid(self) -> int | None:
        """The server's process id, or ``None`` when it does not answer."""
        try:
            return int(info(self.socket_path)["process_id"])
        except (OSError, ServerReplyError, KeyError):
            return None

    def ensure(self) -> str:
        """Make sure that the server runs and that this process is a user; give the URL, which may have changed.

        For a long-lived process whose server was killed, and for a forked child that goes on using what it inherited.
        Any number of threads may call it at once: one of them starts the server. When nothing is amiss, all it costs
        is one PING. Blocks and raises as ``connect`` does; also raises ConfigurationError if this handle was released.
        """
        state = current_state()
        if not (self._belongs_here() and self._membership.is_current() and ping(self.socket_path) == "ready"):
            with state.lock:
                inherited = self._state is not state
                if self._released and not inherited:
                    raise ConfigurationError(f"this use of embedded:{self.path} was released; call connect() again")
                previous, self._membership = self._membership, _acquire(prepare_directory(self.path), START_TIMEOUT)
                self._state, self._released = state, False
                if not inherited:
                    _release(previous)
        return self.url

    def release(self) -> None:
        """Give this use back. The last user of all processes shuts the server down unless it is kept alive.

        Never raises, and may be called any number of times. In a forked child that inherited the handle it does
        nothing: the use belongs to the parent.
        """
        with current_state().lock:
            if self._belongs_here():
                self._released = True
                _release(self._membership)

    def _belongs_here(self) -> bool:
        """Whether this process has a use to give back."""
        return not self._released and self._state is current_state()

    def __enter__(self) -> Self:
        """Give the handle itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the handle."""
        self.release()

    def __repr__(self) -> str:
        """Show where the server is."""
        return f"<EmbeddedServer {self.path}{' released' if self._released else ''}>"


def _acquire(directory: Path, timeout: float) -> Membership:
    """Count up this process's membership, made now if there is none, and start the server if it does not run."""
    state = current_state()
    with state.lock:
        # When somebody has deleted the directory, its handles keep the old membership until they are released; who
        # connects now gets a server in the new directory.
        found = (known for known in state.memberships if known.directory == directory and known.is_current())
        membership = next(found, None)
        if membership is None:
            membership = _join(directory, timeout)
            state.memberships.add(membership)
        elif ping(membership.socket_path) != "ready":
            _restart(membership, timeout)
        membership.count += 1
        return membership


def _join(directory: Path, timeout: float) -> Membership:
    deadline = time.monotonic() + timeout
    users_fd = pid_fd = -1
    try:
        # Under the start lock nobody can be in the middle of leaving as the last user.
        with start_lock(directory, deadline):
            users_fd = open_file(directory / USERS_LOCK, os.O_RDWR | os.O_CREAT)
            lock_until(users_fd, exclusive=False, deadline=deadline)
            socket_path = ensure_running(directory, read_keep_alive(directory) or 0, deadline)
            pid_fd = open_file(directory / PID_FILE)
        wait_until_loaded(directory, socket_path)
    except BaseException:
        close_file(users_fd)
        close_file(pid_fd)
        raise
    return Membership(directory, users_fd, pid_fd, socket_path)


def _restart(membership: Membership, timeout: float) -> None:
    directory = membership.directory
    deadline = time.monotonic() + timeout
    with start_lock(directory, deadline):
        membership.socket_path = ensure_running(directory, read_keep_alive(directory) or 0, deadline)
    wait_until_loaded(directory, membership.socket_path)


def _release(membership: Membership) -> None:
    state = current_state()
    with state.lock:
        membership.count -= 1
        if membership.count <= 0 and membership in state.memberships:
            _end(membership, STOP_TIMEOUT)


def _end(membership: Membership, lock_timeout: float) -> None:
    current_state().memberships.discard(membership)
    # Whatever goes wrong here, the locks must be given back: leaving is never refused.
    with contextlib.suppress(OSError, ToroError, ServerReplyError):
        _leave(membership, lock_timeout)
    close_file(membership.users_fd)
    close_file(membership.pid_fd)


def _leave(membership: Membership, lock_timeout: float) -> None:
    if not membership.is_current():
        if is_same_file(membership.pid_fd, membership.directory / PID_FILE):
            # Only the users' file was replaced. The server can still be reached and belongs to whoever joins now.
            return
        # Nobody can join a deleted directory, so no start lock is needed; and the socket's path may
        # belong to a new server by now, so the old one is reached by its process id. It is killed rather
        # than asked: its data went with the directory, and an orderly end would delete the new socket.
        if try_lock(membership.users_fd, exclusive=True) and is_held(membership.pid_fd):
            pid, _ = read_pid_file(membership.pid_fd)
            if pid > 0:
                os.kill(pid, signal.SIGKILL)
        return
    with start_lock(membership.directory, time.monotonic() + lock_timeout):
        if read_keep_alive(membership.directory) is not None:
            return
        # Turning the shared lock into an exclusive one fails while any other process shares it.
        if try_lock(membership.users_fd, exclusive=True):
            shut_down(membership.pid_fd, membership.socket_path, time.monotonic() + STOP_TIMEOUT)


def release_all() -> None:
    """Leave every server at interpreter exit: once, and within a bounded time."""
    state = current_state()
    # A daemon thread may hang in connect() with this lock; the kernel then gives our locks back anyway.
    if not state.lock.acquire(timeout=_EXIT_LOCK_TIMEOUT):
        return
    try:
        for membership in list(state.memberships):
            _end(membership, _EXIT_LOCK_TIMEOUT)
    finally:
        state.lock.release()


# Workers write their last before their server goes.
after_shutdown(release_all)
