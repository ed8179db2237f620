"""Processes: that they end cleanly, survive a fork, keep their locks when busy, and are replaced when killed."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.support.eventually import eventually
from tests.support.redisbox import RedisBox
from toromq import server, sync

if TYPE_CHECKING:
    import redis as redis_package

_PROGRAMS = Path(__file__).parent / "programs"
# Nothing here waits as long when all is well; a process that hangs must not stop the run.
_PATIENCE = 60.0


def _command(program: str, *arguments: str) -> list[str]:
    # Warnings that are hidden by default would be seen on stderr, which the tests want empty.
    return [sys.executable, "-W", "default", str(_PROGRAMS / program), *arguments]


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(program, *arguments), capture_output=True, text=True, timeout=_PATIENCE)


class WorkerProcess:
    """`programs/worker.py`, started, and killed at the end if it still runs."""

    def __init__(self, kind: str, url: str, prefix: str, queue: str, **options: Any) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._output, self._errors = (Path(self._folder.name) / name for name in ("stdout", "stderr"))
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                _command("worker.py", kind, url, prefix, queue, json.dumps(options)), stdout=output, stderr=errors
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(_PATIENCE)

    @property
    def stderr(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    def told(self, word: str) -> list[str]:
        # A last line without its end is still being written.
        lines = self._output.read_text(encoding="utf-8").split("\n")[:-1]
        return [line.removeprefix(word).strip() for line in lines if line.split()[0] == word]

    def wait_ready(self) -> None:
        eventually(lambda: self.told("ready"), _PATIENCE, "the worker process is ready")


@pytest.fixture
def queue(redisbox: RedisBox, prefix: str) -> Iterator[sync.Queue[Any, Any]]:
    """The queue `jobs` of the test's prefix."""
    made: sync.Queue[Any, Any] = sync.Queue("jobs", connection=redisbox.url, prefix=prefix)
    with made:
        yield made


def _ids(redis: redis_package.Redis, prefix: str, state: str) -> set[str]:
    key = f"{prefix}:jobs:{state}"
    found = redis.zrange(key, 0, -1) if state in ("completed", "failed") else redis.lrange(key, 0, -1)
    return {str(job_id) for job_id in found}


# ==================================================================================================
# EXIT: a process that has used toromq ends when it ends, with its own exit code and words only.
# ==================================================================================================

_CLEAN_ENDS = (
    "closed",
    "sync_closed",
    "unclosed",
    "sync_unclosed",
    "in_flight",
    "sync_exit",
    "exit_in_flight",
    "sync_worker_unclosed",
    "worker_unclosed",
    "waiting",
    "exit_waiting",
    "sync_waiting",
)


class TestExit:
    @pytest.mark.timeout(600)
    def test_a_thousand_processes_that_add_and_exit_do_so_cleanly(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str
    ) -> None:
        def produce(n: int) -> str:
            end = _CLEAN_ENDS[n % len(_CLEAN_ENDS)]
            done = _run("producer.py", end, redisbox.url, prefix)
            assert (done.returncode, done.stderr) == (0, ""), f"process {n}, {end}"
            return done.stdout.strip()

        began = time.monotonic()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ids = list(pool.map(produce, range(1000)))
        print(f"{time.monotonic() - began:.0f} s")
        assert len(set(ids)) == 1000
        assert _ids(redis, prefix, "wait") == set(ids)

    def test_threads_that_add_while_the_process_ends_say_nothing(self, redisbox: RedisBox, prefix: str) -> None:
        for _ in range(20):
            done = _run("producer.py", "sync_threads_in_flight", redisbox.url, prefix)
            assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("end", ["raises", "raises_in_flight"])
    def test_a_process_that_ends_by_its_own_mistake_prints_that_and_nothing_else(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, end: str
    ) -> None:
        done = _run("producer.py", end, redisbox.url, prefix)
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback (most recent call last):\n")
        assert done.stderr.endswith("\nValueError: the program's own mistake\n")
        assert done.stderr.count("Traceback") == 1
        assert _ids(redis, prefix, "wait") == {done.stdout.strip()}

    def test_a_thread_that_the_interpreter_waits_for_finishes_its_add(self, prefix: str) -> None:
        with RedisBox() as box:
            # The reply can't come before the main thread has ended.
            box.pause()
            process = subprocess.Popen(
                _command("producer.py", "thread_in_flight", box.url, prefix),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "the main thread ends\n"
            box.unpause()
            output, errors = process.communicate(timeout=_PATIENCE)
            assert (process.returncode, errors) == (0, "")
            assert _ids(box.client(), prefix, "wait") == {output.strip()}

    @pytest.mark.parametrize(
        "ask",
        [
            "queue.add('late')",
            "queue.get_job_counts()",
            "sync.FlowProducer(connection=URL).add(toromq.FlowJob('late', queue_name='jobs'))",
            "asyncio.run(toromq.Queue('jobs', connection=URL, prefix=PREFIX).add('late'))",
            "sync.Worker('jobs', print, connection=URL, prefix=PREFIX).run()",
        ],
    )
    def test_what_uses_it_when_it_has_ended_is_told_and_does_not_hold_the_process(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, ask: str
    ) -> None:
        # The first to be registered is the last to be called.
        program = """
import asyncio, atexit, sys
URL, PREFIX = sys.argv[1:]
def at_exit():
    try:
        ASK
    except toromq.ToroError as error:
        print(error)
    queue.close()
atexit.register(at_exit)
import toromq
from toromq import sync
queue = sync.Queue("jobs", connection=URL, prefix=PREFIX)
queue.add("early", job_id="early")
"""
        command = [sys.executable, "-W", "default", "-c", program.replace("ASK", ask), redisbox.url, prefix]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        assert (done.returncode, done.stderr) == (0, "")
        assert "import toromq before you register with atexit" in done.stdout
        assert _ids(redis, prefix, "wait") == {"early"}

    def test_event_loops_in_daemon_threads_end_with_the_program(self, redisbox: RedisBox, prefix: str) -> None:
        program = """
import asyncio, sys, threading
from toromq import Queue, Worker
options = {"connection": sys.argv[1], "prefix": sys.argv[2]}
ran = threading.Event()
async def processor(job):
    await asyncio.sleep(0)
    ran.set()
async def main():
    queue = Queue("jobs", **options)
    async with Worker("jobs", processor, concurrency=20, **options):
        while True:
            await asyncio.gather(*(queue.add("n", remove_on_complete=True) for _ in range(20)))
for _ in range(3):
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
ran.wait()
"""
        command = [sys.executable, "-c", program, redisbox.url, prefix]
        # Most of them crashed, each in a moment of its own.
        for _ in range(8):
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
            assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("end", ["away", "sync_away"])
    def test_without_redis_an_add_fails_and_names_the_place_and_the_mend(self, end: str) -> None:
        with RedisBox() as box:
            url, place = box.url, f"127.0.0.1:{box.port}"
        done = _run("producer.py", end, url, "away")
        assert (done.returncode, done.stderr) == (0, "")
        assert place in done.stdout
        assert "toromq server start" in done.stdout
        assert "TOROMQ_URL" in done.stdout

    def test_without_redis_an_add_that_nobody_catches_is_the_only_traceback(self) -> None:
        with RedisBox() as box:
            url = box.url
        done = _run("producer.py", "sync_away_raises", url, "away")
        assert done.returncode == 1
        assert done.stderr.count("Traceback") == 1
        assert done.stderr.splitlines()[-1].startswith("toromq.errors.RedisConnectionError: ")

    @pytest.mark.parametrize("end", ["away_in_flight", "away_worker_unclosed", "sync_away_worker_unclosed"])
    def test_without_redis_a_process_still_ends(self, end: str) -> None:
        with RedisBox() as box:
            url = box.url
        done = _run("producer.py", end, url, "away")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize("end", ["away_in_flight", "away"])
    def test_under_a_suspended_redis_a_process_still_ends(self, end: str) -> None:
        with RedisBox() as box:
            box.pause()
            done = _run("producer.py", end, box.url, "away")
            assert (done.returncode, done.stderr) == (0, "")


# ==================================================================================================
# FORK: children use what their parent made, or nothing of it; nobody hangs.
# ==================================================================================================


def _fork(box: RedisBox, prefix: str, shape: str) -> str:
    done = _run("forks.py", shape, box.url, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


_BEFORE_AND_AFTER = {"parent-before", "parent-after"}
_HARD = {"hard-async", "hard-sync", "multiprocessing-async", "multiprocessing-sync"}


class TestFork:
    def test_children_add_with_the_objects_of_a_blocking_parent(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str
    ) -> None:
        _fork(redisbox, prefix, "sync_parent")
        assert _ids(redis, prefix, "wait") == _BEFORE_AND_AFTER | _HARD | {"exit-async", "exit-sync"}

    @pytest.mark.parametrize("shape", ["waiting_parent", "sync_waiting_parent"])
    def test_children_wait_for_jobs_while_their_parent_does(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, shape: str
    ) -> None:
        _fork(redisbox, prefix, shape)
        children = {"hard", "multiprocessing"} | ({"exit"} if shape == "sync_waiting_parent" else set())
        assert _ids(redis, prefix, "completed") == {"parent"} | {f"{name}-{n}" for name in children for n in range(3)}

    def test_children_add_with_the_objects_of_an_async_parent(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str
    ) -> None:
        _fork(redisbox, prefix, "async_parent")
        assert _ids(redis, prefix, "wait") == _BEFORE_AND_AFTER | _HARD

    @pytest.mark.parametrize("shape", ["worker_in_parent", "sync_worker_in_parent"])
    def test_a_worker_of_the_parent_runs_the_jobs_of_its_children(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, shape: str
    ) -> None:
        _fork(redisbox, prefix, shape)
        assert _ids(redis, prefix, "completed") == _BEFORE_AND_AFTER | _HARD

    def test_children_without_a_use_for_toromq_exit_cleanly(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str
    ) -> None:
        _fork(redisbox, prefix, "idle_children")
        assert _ids(redis, prefix, "wait") == {*_BEFORE_AND_AFTER, "parent-async"}

    def test_other_programs_are_run_beside_a_worker(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str
    ) -> None:
        _fork(redisbox, prefix, "subprocesses")
        assert _ids(redis, prefix, "wait") == _BEFORE_AND_AFTER

    def test_objects_made_before_the_fork_are_used_by_many_children(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str
    ) -> None:
        _fork(redisbox, prefix, "preload")
        assert _ids(redis, prefix, "wait") == {f"child-{n}-{face}" for n in range(5) for face in ("async", "sync")}

    @pytest.mark.parametrize("shape", ["preload", "workers_after_a_worker"])
    def test_workers_of_parent_and_children_lock_under_different_tokens(
        self, redisbox: RedisBox, prefix: str, shape: str
    ) -> None:
        tokens = _fork(redisbox, prefix, shape).split()
        assert len(set(tokens)) == 5

    @pytest.mark.parametrize(
        "shape", ["child_leaves_the_with_block_of_a_worker", "child_closes_the_workers_of_its_parent"]
    )
    def test_a_child_that_closes_the_worker_of_its_parent_goes_on(
        self, redisbox: RedisBox, prefix: str, shape: str
    ) -> None:
        _fork(redisbox, prefix, shape)

    def test_children_forked_during_the_first_use_of_another_thread_add(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str
    ) -> None:
        # A process uses it for the first time only once, and not every fork falls into the moment.
        for _ in range(10):
            _fork(redisbox, prefix, "during_first_use")
        assert _ids(redis, prefix, "wait") == {"parent", "child"}

    @pytest.mark.parametrize(
        "shape",
        [
            "while_busy",
            "while_busy_with_an_exit",
        ],
    )
    def test_two_hundred_children_of_a_busy_parent_add_one_job_each(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, shape: str
    ) -> None:
        _fork(redisbox, prefix, shape)
        of_parent = {"parent-before-sync", "parent-before-async", "busy-sync"} | {f"busy-async-{n}" for n in range(20)}
        assert _ids(redis, prefix, "wait") == of_parent | {f"child-{n}" for n in range(200)}


# ==================================================================================================
# LOCKS: a job keeps its lock while its process lives, and only then.
# ==================================================================================================


class TestLocks:
    @pytest.mark.parametrize("kind", ["hold_interpreter", "hold_interpreter_async", "block_loop"])
    def test_a_processor_that_stops_all_of_python_keeps_its_lock_and_runs_once(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, queue: sync.Queue[Any, Any], kind: str
    ) -> None:
        lock_duration = 500
        options = {"lock_duration": lock_duration, "stalled_interval": 50}
        with WorkerProcess(kind, redisbox.url, prefix, "jobs", **options) as holder:
            holder.wait_ready()
            job_id = str(queue.add("n", {"seconds": 3 * lock_duration / 1000}).id)
            eventually(lambda: holder.told("start"))
            with WorkerProcess("nap", redisbox.url, prefix, "jobs", **options) as rival:
                rival.wait_ready()
                # The time of a pass of the stalled check is what this key holds.
                passes: set[Any] = set()
                while True:
                    locked = redis.exists(f"{prefix}:jobs:{job_id}:lock")
                    passes.add(redis.get(f"{prefix}:jobs:stalled-check"))
                    if holder.told("end"):
                        break
                    assert locked
                    time.sleep(0.01)
                # The first suspects it, and the next would take it away.
                assert len(passes) > 2
                eventually(lambda: _ids(redis, prefix, "completed") == {job_id})
                assert (holder.told("start"), rival.told("start")) == ([job_id], [])
                assert redis.hget(f"{prefix}:jobs:{job_id}", "stc") is None
                assert (holder.stderr, rival.stderr) == ("", "")

    @pytest.mark.parametrize("kind", ["forever", "forever_in_a_thread"])
    def test_the_jobs_of_a_killed_worker_are_run_by_another(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, queue: sync.Queue[Any, Any], kind: str
    ) -> None:
        options = {"lock_duration": 300, "stalled_interval": 100, "concurrency": 3}
        with WorkerProcess(kind, redisbox.url, prefix, "jobs", **options) as doomed:
            ids = sorted(str(job.id) for job in queue.add_bulk([("n", {"n": n}) for n in range(3)]))
            eventually(lambda: sorted(doomed.told("start")) == ids)
            doomed.kill()
            with WorkerProcess("nap", redisbox.url, prefix, "jobs", **options) as survivor:
                eventually(lambda: _ids(redis, prefix, "completed") == set(ids))
                assert sorted(survivor.told("start")) == ids
                assert survivor.stderr == ""
        for job_id in ids:
            assert redis.hmget(f"{prefix}:jobs:{job_id}", "stc", "ats", "atm") == ["1", "2", "1"]

    def test_no_job_is_lost_when_worker_after_worker_is_killed(
        self, redisbox: RedisBox, redis: redis_package.Redis, prefix: str, queue: sync.Queue[Any, Any]
    ) -> None:
        concurrency, kills = 10, 3
        options = {
            "lock_duration": 300,
            "stalled_interval": 100,
            "concurrency": concurrency,
            "max_stalled_count": kills,
        }
        ids = {str(job.id) for job in queue.add_bulk([("n", {"n": n}) for n in range(1000)])}
        runs: collections.Counter[str] = collections.Counter()
        for _ in range(kills):
            with WorkerProcess("nap", redisbox.url, prefix, "jobs", **options) as doomed:
                eventually(lambda: len(doomed.told("end")) > 100)
                doomed.kill()
                runs.update(doomed.told("start"))
        with WorkerProcess("nap", redisbox.url, prefix, "jobs", **options) as last:
            eventually(lambda: _ids(redis, prefix, "completed") == ids, 30)
            runs.update(last.told("start"))
            assert last.terminate() == 0
            assert last.stderr == ""
        assert set(runs) == ids
        # Again runs only what a killed worker had begun and not yet written down: what it held, and the last batch.
        assert sum(runs.values()) - len(ids) <= kills * 2 * concurrency
        assert not _ids(redis, prefix, "wait")
        assert not _ids(redis, prefix, "active")


# ==================================================================================================
# EMBEDDED: one server for all processes that name the same directory.
# ==================================================================================================


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where nothing is yet. Not tmp_path: a unix socket has room for about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="toromq-") as folder:
        yield Path(folder) / "data"
        server.stop(Path(folder) / "data")


class TestEmbedded:
    def test_processes_share_the_server_of_a_directory(self, directory: Path) -> None:
        url = f"embedded:{directory}"
        with WorkerProcess("nap", url, "shared", "jobs") as worker:
            # All begin at once: whoever is first starts the server.
            with ThreadPoolExecutor(4) as pool:
                produced = list(
                    pool.map(
                        lambda end: _run("producer.py", end, url, "shared"),
                        ("closed", "sync_closed", "exit_in_flight", "sync_unclosed"),
                    )
                )
            assert [(done.returncode, done.stderr) for done in produced] == [(0, "")] * 4
            ids = sorted(done.stdout.strip() for done in produced)
            assert len(set(ids)) == 4
            eventually(lambda: sorted(worker.told("end")) == ids, 20)
            assert server.status(directory).running
            assert worker.terminate() == 0
            assert worker.stderr == ""
        eventually(lambda: not server.status(directory).running)

    def test_what_one_process_left_is_there_for_the_next(self, directory: Path) -> None:
        url = f"embedded:{directory}"
        done = _run("producer.py", "sync_unclosed", url, "shared")
        assert (done.returncode, done.stderr) == (0, "")
        eventually(lambda: not server.status(directory).running)
        with WorkerProcess("nap", url, "shared", "jobs") as worker:
            eventually(lambda: worker.told("end") == [done.stdout.strip()], 20)
