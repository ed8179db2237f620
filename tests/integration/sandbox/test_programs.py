"""Programs with child processes: however such a program ends, its children end with it; and what forks do to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.sandbox.conftest import PROCESSORS, children, lives
from tests.support.eventually import eventually
from toromq import sync

if TYPE_CHECKING:
    from tests.support.redisbox import RedisBox

_PROGRAM = Path(__file__).with_name("program.py")
# Nothing here takes as long when all is well.
_PATIENCE = 60.0


class Program:
    """A running program, and the queue that its worker works on."""

    def __init__(self, how: str, processor: str, url: str, prefix: str) -> None:
        self.queue: sync.Queue[Any, Any] = sync.Queue("q", connection=url, prefix=prefix)
        self.forked: sync.Queue[Any, Any] = sync.Queue("forked", connection=url, prefix=prefix)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(_PROGRAM), how, url, prefix, f"{PROCESSORS}:{processor}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # So that a signal can be sent to all of it, as a terminal does.
            start_new_session=True,
        )

    def heard(self, key: str) -> Any:
        """What it says next of this."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            said = json.loads(line)
            if key in said:
                return said[key]
        raise AssertionError(f"it ended before it said {key!r}: {self.process.communicate()[1]}")

    def ended(self) -> tuple[int, str]:
        """How it ended, and what it complained of."""
        _, errors = self.process.communicate(timeout=_PATIENCE)
        return self.process.returncode, errors


@pytest.fixture
def start(redisbox: RedisBox, prefix: str) -> Iterator[Callable[[str, str], Program]]:
    """Starts programs, and ends them."""
    started: list[Program] = []

    def start(how: str, processor: str) -> Program:
        started.append(Program(how, processor, redisbox.url, prefix))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()
        program.queue.close()
        program.forked.close()


@pytest.mark.leaves_keys_broken("a killed worker leaves its job active and locked")
@pytest.mark.parametrize("processor", ["waits", "waits_async", "stubborn", "holds_interpreter"])
def test_children_end_when_their_program_is_killed(start: Callable[[str, str], Program], processor: str) -> None:
    program = start("stay", processor)
    program.queue.add_bulk([("n", 1), ("n", 2)])
    pids = [program.heard("progress") for _ in range(2)]
    program.process.kill()
    program.process.wait()
    eventually(lambda: not any(map(lives, pids)))


def test_idle_children_end_when_their_program_is_killed(start: Callable[[str, str], Program]) -> None:
    program = start("stay", "pid")
    program.queue.add("n")
    pid = program.heard("completed")
    program.process.kill()
    program.process.wait()
    eventually(lambda: not lives(pid))


@pytest.mark.leaves_keys_broken("a killed worker leaves its job active and locked")
def test_what_a_child_started_ends_when_the_program_is_killed(start: Callable[[str, str], Program]) -> None:
    program = start("stay", "starts_another")
    program.queue.add("n")
    pids = program.heard("progress")
    assert all(map(lives, pids))
    program.process.kill()
    program.process.wait()
    eventually(lambda: not any(map(lives, pids)))


@pytest.mark.parametrize("how", ["end", "end_loop"])
def test_a_program_that_ends_without_closing_leaves_no_child(start: Callable[[str, str], Program], how: str) -> None:
    program = start(how, "pid")
    program.queue.add("n")
    pid = program.heard("completed")
    assert program.ended() == (0, "")
    assert not lives(pid)


def test_an_event_loop_that_ends_takes_its_workers_children_along(start: Callable[[str, str], Program]) -> None:
    program = start("end_loop_and_stay", "pid")
    program.queue.add("n")
    pid = program.heard("completed")
    assert program.heard("ended")
    eventually(lambda: children(program.process.pid) == [])
    assert not lives(pid)
    assert program.process.poll() is None


@pytest.mark.parametrize("how", ["end", "end_loop"])
def test_a_program_that_ends_waits_for_the_jobs_in_its_children(
    start: Callable[[str, str], Program], how: str, tmp_path: Path
) -> None:
    program = start(how, "waits_for_a_file")
    first, second = program.queue.add_bulk([("n", str(tmp_path / "first")), ("n", str(tmp_path / "second"))])
    pids = [program.heard("progress") for _ in range(2)]
    (tmp_path / "first").touch()
    program.heard("completed")
    assert program.queue.get_job_state(second.id) == "active"
    (tmp_path / "second").touch()
    assert program.ended() == (0, "")
    assert program.queue.get_job_state(first.id) == program.queue.get_job_state(second.id) == "completed"
    assert not any(map(lives, pids))


@pytest.mark.parametrize("how", ["run", "run_blocking"])
def test_what_a_terminal_sends_to_all_processes_lets_the_jobs_in_children_end(
    start: Callable[[str, str], Program], how: str, tmp_path: Path
) -> None:
    program = start(how, "waits_for_a_file")
    job = program.queue.add("n", str(tmp_path / "go"))
    pid = program.heard("progress")
    os.killpg(program.process.pid, signal.SIGINT)
    assert lives(pid)
    (tmp_path / "go").touch()
    assert program.heard("completed") == "found"
    assert program.ended() == (0, "")
    assert program.queue.get_job_state(job.id) == "completed"
    assert not lives(pid)


@pytest.mark.parametrize("how", ["run", "run_blocking"])
def test_a_second_signal_kills_the_children_and_hands_back_their_jobs(
    start: Callable[[str, str], Program], how: str
) -> None:
    program = start(how, "stubborn")
    job = program.queue.add("n")
    pid = program.heard("progress")
    os.killpg(program.process.pid, signal.SIGINT)
    # Two at once may be taken for one.
    program.heard("closing")
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.ended() == (0, "")
    assert not lives(pid)
    assert program.queue.get_job_state(job.id) == "waiting"
    found = program.queue.get_job(job.id)
    assert found is not None
    assert (found.attempts_made, found.failed_reason) == (0, None)


def test_a_fork_of_the_program_has_children_of_its_own(start: Callable[[str, str], Program]) -> None:
    program = start("fork", "pid")
    program.queue.add("n")
    first = program.heard("completed")
    program.forked.add("n")
    of_fork = program.heard("completed")
    forked = program.heard("forked")
    assert of_fork != first
    try:
        # The program's goes on.
        program.queue.add("n")
        assert program.heard("completed") == first
        assert children(program.process.pid) == [first]
        # The fork closed its worker, which ended its child and not the other.
        assert not lives(of_fork)
        # And it holds nothing open that would keep the other from seeing its program's end.
        program.process.kill()
        program.process.wait()
        eventually(lambda: not lives(first))
        assert lives(forked)
    finally:
        os.kill(forked, signal.SIGKILL)


def test_forks_while_children_are_started_inherit_none_of_them(start: Callable[[str, str], Program]) -> None:
    program = start("fork_while_starting", "pid")
    assert program.heard("codes") == [0] * 20
    assert program.ended() == (0, "")
