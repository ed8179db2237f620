"""The data directory: which ones can serve, and what its files say."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final

from toromq.errors import ConfigurationError

DEFAULT_PATH: Final = ".toromq"
"""The data directory when none is named, in the current directory."""

LOG: Final = "server.log"
OLD_LOG: Final = "server.log.old"
PID_FILE: Final = "server.pid"
START_LOCK: Final = "start.lock"
USERS_LOCK: Final = "users.lock"
_KEEP_ALIVE: Final = "keep-alive"

_SOCKET_PATH_LIMIT: Final = 107 if sys.platform == "linux" else 103
"""Bytes in the address of a unix socket without the closing NUL: 108 on Linux, 104 on macOS and the BSDs."""

_NETWORK_FILE_SYSTEMS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs"})
"""Here a lock may be a promise of one host only, and a unix socket reaches no other host."""


def resolve(path: str | os.PathLike[str] | None) -> Path:
    """The data directory as an absolute path without links; ``~`` is expanded. Nothing is created."""
    if sys.platform == "win32":
        raise ConfigurationError(
            "embedded: needs unix sockets and file locks, which Windows does not offer here. Run a server in WSL or "
            "in a container and connect to it with redis://localhost:6379, or run your program in WSL."
        )
    return Path(os.path.realpath(Path(path or DEFAULT_PATH).expanduser()))


def prepare_directory(path: str | os.PathLike[str] | None) -> Path:
    """Make the data directory if it is missing, and refuse one that cannot serve."""
    directory = resolve(path)
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
    kind = file_system_of(directory)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise network_file_system_error(directory, f"it is on a network file system ({kind})")
    return directory


def file_system_of(directory: Path) -> str | None:
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


def network_file_system_error(path: Path, reason: str) -> ConfigurationError:
    """The error for a directory whose locks cannot be trusted."""
    return ConfigurationError(
        f"embedded: cannot use {path}: {reason}. Its locks and its socket work within one machine only. "
        "Name a directory on a local disk (embedded:/var/tmp/NAME), or run a server and connect with redis://HOST:PORT."
    )


def choose_socket_path(directory: Path) -> str:
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


def read_keep_alive(directory: Path) -> int | None:
    """The port asked for with ``start``, 0 for none, or ``None`` when the server is not kept alive."""
    try:
        text = (directory / _KEEP_ALIVE).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else 0


def write_keep_alive(directory: Path, port: int) -> None:
    """Keep the server alive from now on, with this port, or 0 for none."""
    (directory / _KEEP_ALIVE).write_text(f"{port}\n", encoding="ascii")


def forget_keep_alive(directory: Path) -> None:
    """Let the server end with its last user again."""
    (directory / _KEEP_ALIVE).unlink(missing_ok=True)


def read_pid_file(fd: int) -> tuple[int, str]:
    """Process id (0 if not known) and socket path ("" if the server was never started)."""
    pid, _, socket_path = os.pread(fd, 4096, 0).partition(b"\n")
    return (int(pid) if pid.isdigit() else 0), os.fsdecode(socket_path.removesuffix(b"\n"))


def write_pid_file(fd: int, pid: int, socket_path: str) -> None:
    """Tell other processes where the server is."""
    content = b"%d\n%s\n" % (pid, os.fsencode(socket_path))
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)


def log_tail(directory: Path, offset: int = 0) -> str:
    """The last lines of the server's log, from ``offset`` on, under a heading: the end of an error message."""
    try:
        with (directory / LOG).open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, offset if offset <= size else 0, size - 8192))
            lines = log.read().decode(errors="replace").splitlines()[-15:]
    except OSError as error:
        lines = [f"(no log: {error})"]
    return "\n  ".join([f"Last lines of {directory / LOG}:", *(lines or ["(the log is empty)"])])


def is_same_file(fd: int, path: Path) -> bool:
    """Whether an open file is still the one with this name, not deleted or made anew."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False
