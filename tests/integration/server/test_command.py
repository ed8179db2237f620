"""``toromq server`` as a person types it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.redisbox import free_port
from toromq import cli, server
from toromq.server import wire


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the ``toromq`` command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "toromq", *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=cwd
    )


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

    def test_the_line_that_start_prints_stops_the_server_from_any_directory(self, directory: Path) -> None:
        directory.mkdir()
        started = command("server", "start", "--path", "it's data", cwd=directory)
        program, *words = shlex.split(started.stdout.splitlines()[-1].removeprefix("It runs until: "))
        assert program == "toromq"
        assert "Stopped" in command(*words).stdout
        assert not server.status(directory / "it's data").running

    def test_a_server_that_does_not_answer_is_told_from_one_that_does_not_run(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pid = server.start(directory).pid
        assert pid is not None
        monkeypatch.setattr(wire, "REPLY_TIMEOUT", 0.2)
        os.kill(pid, signal.SIGSTOP)
        assert cli.main(["server", "status", "--path", str(directory)]) == 3
        assert capsys.readouterr().out.startswith(f"Not answering: process {pid} holds {directory}")

    def test_ctrl_c_ends_with_exit_code_130_and_no_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(server, "start", interrupted)
        assert cli.main(["server", "start"]) == 130

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
