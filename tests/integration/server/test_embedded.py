"""Using the server behind ``embedded:PATH``: who starts it, who shares it, who ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest
import redis

from tests.integration.server.users import User, at_once, kill_server, read, starts, write
from tests.support.eventually import eventually
from toromq import server
from toromq.errors import ConfigurationError, RedisConnectionError
from toromq.server import embedded, wire
from toromq.server.process import current_state


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
            assert starts(directory) == 1
            for user in users[1:]:
                user.leave()
            assert server.status(directory).running
            users[0].leave()
            assert not server.status(directory).running

    def test_processes_that_come_and_go_at_once_lose_no_data(self, directory: Path) -> None:
        script = """
import sys
from toromq import server
from toromq.server import wire
for _ in range(10):
    with server.connect(sys.argv[1]) as used:
        wire.command(used.socket_path, "INCR", "rounds")
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
        monkeypatch.setattr(embedded, "STOP_TIMEOUT", 0.1)
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

    def test_threads_that_call_ensure_at_once_after_a_crash_share_one_new_server_with_its_data(
        self, directory: Path
    ) -> None:
        with server.connect(directory) as used:
            write(used, "key", "value")
            kill_server(directory)
            assert at_once(4, used.ensure) == [used.url] * 4
            assert read(used, "key") == "value"
            assert starts(directory) == 2
        assert not server.status(directory).running, "however often it was ensured, it is one use to give back"

    def test_threads_that_call_ensure_at_once_after_the_directory_was_deleted_count_as_one_use(
        self, directory: Path
    ) -> None:
        used = server.connect(directory)
        subprocess.run(["rm", "-rf", str(directory)], check=True)
        assert at_once(4, used.ensure) == [used.url] * 4
        assert starts(directory) == 1
        assert server.status(directory).running
        used.release()
        assert not server.status(directory).running

    def test_ensure_joins_the_server_that_another_process_started_after_the_directory_was_deleted(
        self, directory: Path
    ) -> None:
        used = server.connect(directory)
        subprocess.run(["rm", "-rf", str(directory)], check=True)
        with User(directory) as other:
            pid = other.server_pid()
            used.ensure()
            other.leave()
        assert server.status(directory).pid == pid
        used.release()
        assert not server.status(directory).running

    def test_ensure_costs_one_ping_while_the_server_answers(self, directory: Path) -> None:
        with (
            server.connect(directory) as used,
            redis.Redis(unix_socket_path=used.socket_path, protocol=2, decode_responses=True) as client,
        ):
            client.config_resetstat()
            used.ensure()
            calls = {name: entry["calls"] for name, entry in client.info("commandstats").items()}
            assert calls == {"cmdstat_config|resetstat": 1, "cmdstat_ping": 1}
            assert client.info("stats")["total_connections_received"] == 1

    def test_ensure_does_not_wait_for_threads_that_join_or_leave_while_the_server_answers(
        self, directory: Path
    ) -> None:
        with server.connect(directory) as used, current_state().lock:
            thread = threading.Thread(target=used.ensure, daemon=True)
            thread.start()
            thread.join(30)
            assert not thread.is_alive()

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
            monkeypatch.setattr(wire, "REPLY_TIMEOUT", 0.2)
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
