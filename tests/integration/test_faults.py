"""What Redis does to us: it dies, hangs, forgets, refuses, runs full. No acknowledged job is lost, and workers go on.

Every test has a server of its own. The worker under test runs in this process, so that its runs can be counted.
"""

from __future__ import annotations

import asyncio
import collections
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually, eventually
from tests.support.invariants import check_invariants
from tests.support.lossy import LossyProxy
from tests.support.redisbox import RedisBox
from toromq import Connection, Job, Queue, RedisConnectionError, ToroError, Worker, sync

if TYPE_CHECKING:
    import redis as redis_package

_PREFIX = "faults"


@pytest.fixture
def box() -> Iterator[RedisBox]:
    """A server of the test's own, to be harmed. It keeps nothing on disk."""
    with RedisBox() as started:
        yield started


def _key(*parts: str) -> str:
    return ":".join((_PREFIX, "jobs", *parts))


class Crew:
    """What the worker under test has run and told."""

    def __init__(self, processor: Callable[[Job[Any, Any]], Awaitable[Any]] | None = None) -> None:
        self.runs: collections.Counter[str] = collections.Counter()
        self.errors: list[Exception] = []
        self.lost: list[str] = []
        self._processor = processor

    async def process(self, job: Job[Any, Any]) -> None:
        self.runs[str(job.id)] += 1
        if self._processor is not None:
            await self._processor(job)

    def worker(self, connection: Connection | str, **options: Any) -> Worker[Any, Any]:
        worker: Worker[Any, Any] = Worker("jobs", self.process, connection=connection, prefix=_PREFIX, **options)
        worker.on("error", self.errors.append)
        worker.on("lock_lost", lambda job: self.lost.append(str(job.id)))
        return worker

    @property
    def doubles(self) -> int:
        return sum(self.runs.values()) - len(self.runs)


class Producer:
    """Adds one job for each number, by many at once, and remembers what became of each."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self.acknowledged: dict[int, str] = {}
        self.refused: list[ToroError] = []

    async def add(self, numbers: Iterable[int]) -> None:
        for n in numbers:
            try:
                job = await self._queue.add("n", {"n": n})
            except ToroError as error:
                # Also the refusals of a server that is still loading its data.
                self.refused.append(error)
            else:
                self.acknowledged[n] = str(job.id)

    def start(self, total: int, tasks: int) -> asyncio.Future[list[None]]:
        return asyncio.gather(*(self.add(range(first, total, tasks)) for first in range(tasks)))


def _completed(client: redis_package.Redis) -> set[str]:
    found: list[Any] = client.zrange(_key("completed"), 0, -1)
    return set(map(str, found))


async def _check_nothing_lost(box: RedisBox, producer: Producer, crew: Crew) -> None:
    """Waits for the last job, then looks at each: all there, none twice, every one run."""
    client = box.client()
    acknowledged = set(producer.acknowledged.values())
    assert len(acknowledged) == len(producer.acknowledged)

    def all_done() -> bool:
        left = [client.llen(_key("wait")), client.llen(_key("active")), client.zcard(_key("delayed"))]
        return left == [0, 0, 0] and client.zcard(_key("completed")) >= len(acknowledged)

    await aeventually(all_done, 30)
    completed = _completed(client)
    assert acknowledged <= completed
    assert set(crew.runs) == completed
    pipeline = client.pipeline(transaction=False)
    for job_id in completed:
        pipeline.hget(_key(job_id), "data")
    numbers = [json.loads(data)["n"] for data in pipeline.execute()]
    assert len(numbers) == len(set(numbers)), "an add was stored twice"
    # An add that raised may have been done; nothing else may be there that was not acknowledged.
    assert len(completed) - len(acknowledged) <= len(producer.refused)
    assert client.zcard(_key("failed")) == 0
    assert client.scard(_key("stalled")) == 0
    assert check_invariants(client, _PREFIX) == []


async def _until_idle(client: redis_package.Redis) -> None:
    await aeventually(lambda: client.info("clients")["blocked_clients"] == 1, message="the worker waits for a marker")


# ==================================================================================================
# KILLED: SIGKILL and a restart on the same port.
# ==================================================================================================


class TestKilledServer:
    @pytest.mark.timeout(120)
    async def test_nothing_acknowledged_is_lost_when_the_server_is_killed_amid_20_000_jobs(self) -> None:
        total, kills = 20_000, 3
        crew = Crew()
        # Flushed before every reply, so that the claim does not lean on what the kernel still holds of a dead process.
        with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
            connection = Connection(box.url, command_timeout=300)
            producer = Producer(Queue("jobs", connection=connection, prefix=_PREFIX))
            async with crew.worker(connection, concurrency=100):
                adding = producer.start(total, 200)
                for kill in range(kills):
                    goal = (kill + 1) * total // (kills + 2)
                    await aeventually(lambda: len(crew.runs) > goal, 60)  # noqa: B023 - it is awaited at once
                    box.kill()
                    if kill == 0:
                        # Long enough for adds to give up; after the other kills they wait and go through.
                        await aeventually(lambda: producer.refused)
                    await asyncio.to_thread(box.start)
                await adding
                await _check_nothing_lost(box, producer, crew)
        print(f"{len(producer.refused)} adds gave up, {crew.doubles} jobs ran twice")
        assert crew.lost == []
        # Every lock outlived every outage, so nothing had a reason to run twice.
        assert crew.doubles == 0

    async def test_a_worker_that_is_idle_while_the_server_is_killed_goes_on(self) -> None:
        crew = Crew()
        with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
            queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
            # It would look by itself only after the test's patience.
            async with crew.worker(box.url, drain_delay=60):
                for _ in range(3):
                    await _until_idle(box.client())
                    box.kill()
                    await aeventually(lambda: crew.errors)
                    await asyncio.to_thread(box.start)
                    job = await queue.add("n")
                    await aeventually(lambda: job.id in _completed(box.client()))  # noqa: B023 - awaited at once
                    crew.errors.clear()
        assert (len(crew.runs), crew.doubles) == (3, 0)

    def test_a_blocking_worker_that_is_idle_while_the_server_is_killed_goes_on(self) -> None:
        ran: list[str] = []
        errors: list[Exception] = []
        with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
            worker: sync.Worker[Any, Any] = sync.Worker(
                "jobs", lambda job: ran.append(str(job.id)), connection=box.url, prefix=_PREFIX, drain_delay=60
            )
            worker.on("error", errors.append)
            queue: sync.Queue[Any, Any] = sync.Queue("jobs", connection=box.url, prefix=_PREFIX)
            with worker:
                client = box.client()
                eventually(lambda: client.info("clients")["blocked_clients"] == 1)
                box.restart(kill=True)
                eventually(lambda: errors)
                job_id = str(queue.add("n").id)
                eventually(lambda: _completed(box.client()) == {job_id})
        assert ran == [job_id]

    async def test_a_job_that_ends_while_the_server_is_away_is_written_down_later(self) -> None:
        release = asyncio.Event()

        async def wait_for_release(job: Job[Any, Any]) -> None:
            await release.wait()

        crew = Crew(wait_for_release)
        with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
            queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
            async with crew.worker(box.url, concurrency=3):
                jobs = await queue.add_bulk([("n", {"n": n}) for n in range(3)])
                await aeventually(lambda: len(crew.runs) == 3)
                box.kill()
                release.set()
                await aeventually(lambda: crew.errors)
                await asyncio.to_thread(box.start)
                await aeventually(lambda: _completed(box.client()) == {str(job.id) for job in jobs})
        assert crew.doubles == 0

    async def test_a_queue_that_was_used_before_the_restart_is_used_after_it(self) -> None:
        with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
            queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
            blocking: sync.Queue[Any, Any] = sync.Queue("jobs", connection=box.url, prefix=_PREFIX)
            await queue.add("n")
            blocking.add("n")
            await asyncio.to_thread(box.restart, kill=True)
            assert (await queue.get_job_counts())["waiting"] == 2
            assert blocking.get_job_counts()["waiting"] == 2
            assert [job.name for job in await queue.get_jobs("waiting")] == ["n", "n"]


# ==================================================================================================
# SUSPENDED and AWAY: connections that stay open and say nothing; no connections at all.
# ==================================================================================================

_LONGER_THAN_A_BLOCKING_WAIT = 2.0


class TestSuspendedServer:
    async def test_an_idle_worker_goes_on_after_its_server_was_suspended_for_longer_than_it_waits(
        self, box: RedisBox
    ) -> None:
        crew = Crew()
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        async with crew.worker(box.url, drain_delay=0.5):
            await _until_idle(box.client())
            box.pause()
            # The fault itself: no event tells from outside that the wait was given up.
            await asyncio.sleep(_LONGER_THAN_A_BLOCKING_WAIT)
            box.unpause()
            job = await queue.add("n")
            await aeventually(lambda: job.id in _completed(box.client()))
        assert crew.runs == {job.id: 1}

    async def test_nothing_is_lost_or_doubled_when_replies_stay_out_under_load(self, box: RedisBox) -> None:
        crew = Crew()
        connection = Connection(box.url, command_timeout=300, connect_timeout=300)
        producer = Producer(Queue("jobs", connection=connection, prefix=_PREFIX))
        async with crew.worker(connection, concurrency=50, drain_delay=0.5):
            adding = producer.start(5000, 100)
            for goal in (1000, 2500):
                await aeventually(lambda: len(crew.runs) > goal)  # noqa: B023 - it is awaited at once
                crew.errors.clear()
                before = len(producer.refused)
                box.pause()
                await aeventually(lambda: crew.errors and (adding.done() or len(producer.refused) > before))  # noqa: B023
                box.unpause()
            await adding
            await _check_nothing_lost(box, producer, crew)
        assert crew.doubles == 0

    async def test_an_add_gives_up_within_its_time_and_names_the_place(self, box: RedisBox) -> None:
        queue: Queue[Any, Any] = Queue("jobs", connection=Connection(box.url, command_timeout=200), prefix=_PREFIX)
        await queue.add("n")
        box.pause()
        # Far below the default of 5 s, which shows that the option is what counts.
        async with asyncio.timeout(3):
            with pytest.raises(RedisConnectionError, match=f"127.0.0.1:{box.port}"):
                await queue.add("n")
        box.unpause()
        await queue.add("n")

    async def test_many_callers_give_up_together(self, box: RedisBox) -> None:
        connection = Connection(box.url, command_timeout=200, connect_timeout=200)
        queue: Queue[Any, Any] = Queue("jobs", connection=connection, prefix=_PREFIX)
        await queue.add("n")
        box.pause()
        with pytest.raises(RedisConnectionError):
            await queue.get_job_counts()
        # One after the other they would need 10 s.
        async with asyncio.timeout(2):
            found = await asyncio.gather(*(queue.get_job_counts() for _ in range(50)), return_exceptions=True)
        assert {type(error) for error in found} == {RedisConnectionError}

    async def test_an_operation_that_must_connect_gives_up_within_its_time(self, box: RedisBox) -> None:
        connection = Connection(box.url, command_timeout=200, connect_timeout=20_000)
        queue: Queue[Any, Any] = Queue("jobs", connection=connection, prefix=_PREFIX)
        box.pause()
        async with asyncio.timeout(2):
            with pytest.raises(RedisConnectionError):
                await queue.add("n")


class TestServerThatStaysAway:
    async def test_an_add_gives_up_within_its_time_and_says_what_to_do(self, box: RedisBox) -> None:
        queue: Queue[Any, Any] = Queue("jobs", connection=Connection(box.url, command_timeout=200), prefix=_PREFIX)
        await queue.add("n")
        box.kill()
        async with asyncio.timeout(3):
            with pytest.raises(RedisConnectionError) as refused:
                await queue.add("n")
            with pytest.raises(RedisConnectionError, match=f"127.0.0.1:{box.port}"):
                await queue.get_job_counts()
        message = str(refused.value)
        assert f"127.0.0.1:{box.port}" in message
        assert "toromq server start" in message
        assert "TOROMQ_URL" in message
        box.start()
        await queue.add("n")

    async def test_a_worker_says_so_and_begins_when_the_server_comes(self, box: RedisBox) -> None:
        box.kill()
        crew = Crew()
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        worker = crew.worker(box.url)
        ready: list[bool] = []
        worker.on("ready", lambda: ready.append(True))
        async with worker:
            await aeventually(lambda: len(crew.errors) > 2)
            assert {type(error) for error in crew.errors} == {RedisConnectionError}
            assert f"127.0.0.1:{box.port}" in str(crew.errors[0])
            assert ready == []
            await asyncio.to_thread(box.start)
            job = await queue.add("n")
            await aeventually(lambda: job.id in _completed(box.client()))
            assert ready == [True]

    @pytest.mark.parametrize("force", [False, True])
    async def test_a_worker_closes_without_its_server(self, box: RedisBox, force: bool) -> None:
        async def forever(job: Job[Any, Any]) -> None:
            await asyncio.Event().wait()

        crew = Crew(forever if force else None)
        worker = crew.worker(box.url)
        async with worker:
            if force:
                await Queue("jobs", connection=box.url, prefix=_PREFIX).add("n")
                await aeventually(lambda: crew.runs)
            else:
                await _until_idle(box.client())
            box.kill()
            async with asyncio.timeout(30):
                await worker.close(force)
        assert not worker.is_running()


# ==================================================================================================
# FORGETTING and CUTTING: scripts that are gone, connections that are closed.
# ==================================================================================================


class TestFlushedScripts:
    async def test_flushing_the_scripts_is_noticed_by_nobody(self, box: RedisBox) -> None:
        crew = Crew()
        stop = threading.Event()
        flushes = 0

        def keep_flushing() -> None:
            nonlocal flushes
            client = box.client()
            while not stop.is_set():
                client.script_flush()
                flushes += 1
                time.sleep(0.002)  # The rhythm of the fault

        flushing = asyncio.create_task(asyncio.to_thread(keep_flushing))
        producer = Producer(Queue("jobs", connection=box.url, prefix=_PREFIX))
        try:
            async with crew.worker(box.url, concurrency=20):
                await producer.start(3000, 30)
                await _check_nothing_lost(box, producer, crew)
        finally:
            stop.set()
            await flushing
        assert flushes > 20
        assert (producer.refused, crew.errors, crew.doubles) == ([], [], 0)


class TestKilledConnections:
    async def test_cut_connections_neither_lose_nor_double_a_job(self, box: RedisBox) -> None:
        total, every = 3000, 100
        kills = 0
        killer = box.client()

        async def cut_now_and_then(job: Job[Any, Any]) -> None:
            nonlocal kills
            # By progress rather than by time, so that a slow machine cuts as often as a fast one.
            if sum(crew.runs.values()) // every > kills:
                kills += 1
                await asyncio.to_thread(killer.client_kill_filter, _type="normal")

        crew = Crew(cut_now_and_then)
        producer = Producer(Queue("jobs", connection=box.url, prefix=_PREFIX))
        async with crew.worker(box.url, concurrency=20):
            await producer.start(total, 50)
            await _check_nothing_lost(box, producer, crew)
        print(f"{kills} cuts, {crew.doubles} jobs ran twice")
        assert kills >= total // every - 1
        assert producer.refused == []
        assert crew.errors
        assert crew.doubles == 0

    async def test_an_idle_worker_whose_connections_were_cut_is_woken_all_the_same(self, box: RedisBox) -> None:
        crew = Crew()
        killer = box.client()
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        async with crew.worker(box.url, drain_delay=60):
            for n in range(10):
                await _until_idle(killer)
                killer.client_kill_filter(_type="normal")
                await queue.add("n")
                await aeventually(lambda: len(_completed(killer)) == n + 1)  # noqa: B023 - it is awaited at once
        assert crew.doubles == 0


# ==================================================================================================
# REFUSING: a replica, a full server, a job that can't be written down.
# ==================================================================================================


class TestReplica:
    async def test_a_replica_refuses_and_serves_once_it_is_the_master(self, box: RedisBox) -> None:
        client = box.client()
        client.replicaof("127.0.0.1", "1")
        crew = Crew()
        queue: Queue[Any, Any] = Queue("jobs", connection=Connection(box.url, command_timeout=200), prefix=_PREFIX)
        async with crew.worker(box.url):
            with pytest.raises(ToroError, match=r"read only replica.*connect to the master"):
                await queue.add("n")
            await aeventually(lambda: any("read only replica" in str(error) for error in crew.errors))
            client.replicaof("NO", "ONE")
            job = await queue.add("n")
            await aeventually(lambda: job.id in _completed(client))

    async def test_an_add_whose_reply_was_lost_is_not_said_to_be_refused(self, box: RedisBox) -> None:
        client = box.client()
        connection = Connection(box.url, command_timeout=1000, client_name="producer")
        queue: Queue[Any, Any] = Queue("jobs", connection=connection, prefix=_PREFIX)
        await queue.add("n")
        # Holds the add back after it was sent, so that its reply can be lost for certain.
        client.client_pause(60_000, all=False)
        adding = asyncio.create_task(queue.add("n"))

        def is_sent() -> bool:
            clients: list[dict[str, str]] = client.client_list()
            return any(one["name"] == "producer" and one["cmd"] == "evalsha" and "b" in one["flags"] for one in clients)

        try:
            await aeventually(is_sent)
            client.replicaof("127.0.0.1", "1")
            client.client_kill_filter(_type="normal")
            client.client_unpause()
            with pytest.raises(ToroError, match="not known"):
                await adding
        finally:
            adding.cancel()


class TestRefusals:
    """What nothing but somebody's hand can mend is told with what helps."""

    @pytest.mark.parametrize(
        ("setting", "mend"),
        [
            ("-evalsha -eval", r"no permissions to run .*let the connection's user do that"),
            ("-lpush", r"no permissions to run .*let the connection's user do that"),
            ("resetkeys ~other:*", r"[Nn]o permissions to access .*let the connection's user do that"),
        ],
        ids=["scripts", "a command of a script", "the keys"],
    )
    async def test_a_user_without_a_permission(self, box: RedisBox, setting: str, mend: str) -> None:
        client = box.client()
        client.execute_command("ACL", "SETUSER", "poor", "on", ">pass", "~*", "&*", "+@all", *setting.split())
        url = box.url.replace("redis://", "redis://poor:pass@")
        async with Queue[Any, Any]("jobs", connection=url, prefix=_PREFIX) as queue:
            with pytest.raises(ToroError, match=mend):
                await queue.add("n")
            client.execute_command("ACL", "SETUSER", "poor", "~*", "+@all")
            assert (await queue.add("n")).id

    async def test_a_key_that_somebody_else_has_written(self, box: RedisBox) -> None:
        client = box.client()
        client.set(f"{_PREFIX}:jobs:wait", "not ours")
        async with Queue[Any, Any]("jobs", connection=box.url, prefix=_PREFIX) as queue:
            with pytest.raises(ToroError, match=r"WRONGTYPE.*something else has written.*another prefix"):
                await queue.add("n")
            client.delete(f"{_PREFIX}:jobs:wait")
            assert (await queue.add("n")).id


class TestFullServer:
    async def test_a_full_server_refuses_adds_and_lets_workers_drain_it(self, box: RedisBox) -> None:
        crew = Crew()
        client = box.client()
        queue: Queue[Any, Any] = Queue("jobs", connection=Connection(box.url, command_timeout=200), prefix=_PREFIX)
        jobs = await queue.add_bulk([("n", {"n": n}) for n in range(100)])
        client.config_set("maxmemory", "1mb")
        with pytest.raises(ToroError, match=r"OOM.*maxmemory"):
            await queue.add("n")
        async with crew.worker(box.url, concurrency=10):
            await aeventually(lambda: _completed(client) == {str(job.id) for job in jobs})
            with pytest.raises(ToroError, match=r"OOM.*maxmemory"):
                await queue.add("n")
            client.config_set("maxmemory", "0")
            job = await queue.add("n")
            await aeventually(lambda: job.id in _completed(client))
        assert crew.doubles == 0

    async def test_a_running_job_keeps_its_lock_while_the_server_is_full(self, box: RedisBox) -> None:
        # Long enough for a machine that has other things to do now and then.
        lock_duration = 1000
        release = asyncio.Event()

        async def wait_for_release(job: Job[Any, Any]) -> None:
            await release.wait()

        crew = Crew(wait_for_release)
        client = box.client()
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        async with crew.worker(box.url, lock_duration=lock_duration, stalled_interval=50):
            job = await queue.add("n")
            await aeventually(lambda: crew.runs)
            client.config_set("maxmemory", "1mb")
            until = time.monotonic() + 3 * lock_duration / 1000
            while time.monotonic() < until:
                assert client.exists(_key(str(job.id), "lock"))
                await asyncio.sleep(0.01)
            client.config_set("maxmemory", "0")
            release.set()
            await aeventually(lambda: job.id in _completed(client))
        assert (crew.runs[str(job.id)], crew.lost) == (1, [])


class TestOutcomeThatCannotBeWritten:
    """A key of the wrong type, on which the script that finishes the job fails each time."""

    def _crew(self, client: redis_package.Redis) -> Crew:
        async def break_first(job: Job[Any, Any]) -> None:
            if job.data["n"] == 0:
                await asyncio.to_thread(client.set, _key(str(job.id), "dependencies"), "not a set")

        return Crew(break_first)

    @pytest.mark.parametrize("concurrency", [1, 10])
    async def test_it_does_not_hold_up_other_jobs(self, box: RedisBox, concurrency: int) -> None:
        crew = self._crew(box.client())
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        async with crew.worker(box.url, concurrency=concurrency):
            jobs = [str(job.id) for job in await queue.add_bulk([("n", {"n": n}) for n in range(20)])]
            others = set(jobs[1:])
            await aeventually(lambda: _completed(box.client()) == others)
            assert all(crew.runs[job_id] == 1 for job_id in others)
            await aeventually(lambda: any(f"job {jobs[0]}" in str(error) for error in crew.errors))
            # And the worker still takes what comes.
            late = await queue.add("n", {"n": 1000})
            await aeventually(lambda: late.id in _completed(box.client()))

    async def test_it_is_not_run_again_while_its_lock_lives(self, box: RedisBox) -> None:
        crew = self._crew(box.client())
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        async with crew.worker(box.url, concurrency=2):
            broken = await queue.add("n", {"n": 0})
            await aeventually(lambda: any("can't be written" in str(error) for error in crew.errors))
            for n in range(1, 21):
                job = await queue.add("n", {"n": n})
                await aeventually(lambda: job.id in _completed(box.client()))  # noqa: B023 - awaited at once
            assert crew.runs[str(broken.id)] == 1

    async def test_it_ends_as_failed_when_it_has_stalled_too_often(self, box: RedisBox) -> None:
        crew = self._crew(box.client())
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        async with crew.worker(box.url, lock_duration=200, stalled_interval=50):
            broken = await queue.add("n", {"n": 0})
            await aeventually(lambda: box.client().zscore(_key("failed"), str(broken.id)) is not None, 3)
        assert crew.runs[str(broken.id)] == 2


class TestSwallowedReply:
    async def test_a_short_lock_survives_a_renewal_that_is_never_answered(self, box: RedisBox) -> None:
        client = box.client()
        release = asyncio.Event()
        crew = Crew(lambda job: asyncio.wait_for(release.wait(), 20))
        queue: Queue[Any, Any] = Queue("jobs", connection=box.url, prefix=_PREFIX)
        with LossyProxy(box.url) as proxy:
            async with crew.worker(proxy.url, lock_duration=1500):
                job = await queue.add("n")
                lock = _key(str(job.id), "lock")
                # Of the first job's renewals one must go through, so that the server knows the script.
                await aeventually(lambda: client.pttl(lock) < 1200)
                await aeventually(lambda: client.pttl(lock) > 1200)
                proxy.lose("extend_locks", cut=False)
                await aeventually(lambda: any("no answer within" in str(error) for error in crew.errors))
                # Renewed again, long before an answer was given up for lost.
                await aeventually(lambda: client.pttl(lock) > 1200)
                release.set()
                await aeventually(lambda: str(job.id) in _completed(client))
        assert (proxy.lost, crew.lost, crew.runs[str(job.id)]) == (1, [], 1)
