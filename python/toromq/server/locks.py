"""File locks: who starts or stops the server, who uses it, and whether it lives."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING

from toromq.errors import RedisConnectionError
from toromq.server.files import START_LOCK, is_same_file, network_file_system_error
from toromq.server.process import current_state, opened

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextlib.contextmanager
def start_lock(directory: Path, deadline: float) -> Generator[None]:
    """Be the only process that starts or stops the server of a directory."""
    path = directory / START_LOCK
    while True:
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            lock_until(fd, exclusive=True, deadline=deadline)
            # Whoever deleted the directory meanwhile made this a lock on nothing.
            if is_same_file(fd, path):
                yield
                return


def lock_until(fd: int, *, exclusive: bool, deadline: float) -> None:
    """Lock an open file, or raise once the deadline has passed."""
    # Polled rather than awaited in the kernel: a blocking flock knows no deadline and hides Ctrl-C from threads.
    while not try_lock(fd, exclusive=exclusive):
        if time.monotonic() > deadline:
            path = current_state().fds[fd]
            raise RedisConnectionError(
                f"another process has held {path} for too long; it is starting or stopping the server, or is "
                f"suspended. Find it with: fuser {shlex.quote(str(path))}"
            )
        time.sleep(0.005)


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock an open file if that is possible at once."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            directory = current_state().fds[fd].parent
            raise network_file_system_error(directory, f"file locks do not work there ({error})") from error
        raise
    return True


def is_held(fd: int) -> bool:
    """Tell whether another process holds the exclusive lock: for ``server.pid``, whether the server lives."""
    if not try_lock(fd, exclusive=False):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
