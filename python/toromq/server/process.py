"""What belongs to this process alone: its open lock files and its memberships. A forked child starts without both.

A ``flock`` lock belongs to an *open file*, which a forked child shares with its parent. So a child closes its copies
at once (closing leaves the parent's lock in place, unlocking would take it away) and becomes a user by itself if it
connects.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toromq.errors import ConfigurationError
from toromq.server.files import PID_FILE, USERS_LOCK, is_same_file

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@dataclass(eq=False)
class Membership:
    """The process as a user of one server; shared by all handles for the same directory."""

    directory: Path
    """The data directory that was joined."""
    users_fd: int
    """Open file that carries the shared lock; closed by the last release."""
    pid_fd: int
    """``server.pid``, to reach the server even when somebody has deleted the directory."""
    socket_path: str
    """Rewritten when the server was restarted elsewhere."""
    count: int = 0
    """Handles not yet released."""

    def is_current(self) -> bool:
        """Tell whether the directory is still the one that was joined, not deleted or made anew."""
        return is_same_file(self.users_fd, self.directory / USERS_LOCK) and is_same_file(
            self.pid_fd, self.directory / PID_FILE
        )


class State:
    """All that this process must not share with a forked child. A child gets a fresh one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        """The process this state belongs to."""
        self.lock = threading.RLock()
        """Held while joining and leaving, which waits for other processes."""
        self.memberships: set[Membership] = set()
        """Every membership with a lock to give back, also those whose directory was deleted. Guarded by ``lock``."""
        self.fd_lock = threading.Lock()
        """Held over each open and close, the launch of a server, and over ``fork``: no file is open without
        being listed, and no child holds the pipes of a launch open, which would never seem to finish."""
        self.fds: dict[int, Path] = {}
        """Every lock file this process has open, also for a moment; a forked child closes them."""


_state = State()


def current_state() -> State:
    """The state of the calling process."""
    if _state.pid != os.getpid():
        # A fork that did not go through Python, from a C extension, ran no hook.
        _forget_inherited()
    return _state


def open_file(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a lock file so that no forked child keeps it."""
    state = current_state()
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


def close_file(fd: int) -> None:
    """Close a lock file, unless a fork has done it already."""
    state = current_state()
    with state.fd_lock:
        if state.fds.pop(fd, None) is not None:
            os.close(fd)


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Generator[int]:
    """Open a lock file for as long as the block runs."""
    fd = open_file(path, flags)
    try:
        yield fd
    finally:
        close_file(fd)


def _forget_inherited() -> None:
    """Start afresh in a forked child: close the parent's lock files, count as nobody's user."""
    global _state
    for fd in _state.fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    _state = State()


# The lock is looked up when a fork happens, because a child has replaced the state.
def _before_fork() -> None:
    _state.fd_lock.acquire()


def _after_fork_in_parent() -> None:
    _state.fd_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_forget_inherited)
