"""Which workers a queue has, and its old events, in both faces."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import ConfigurationError, ToroError, Worker, WorkerInfo

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_both_faces = pytest.mark.parametrize("face", [toromq, toromq.sync], ids=["toromq", "sync"])


async def _done(face: Any, operation: Any, *arguments: Any) -> Any:
    return await operation(*arguments) if face is toromq else await asyncio.to_thread(operation, *arguments)


@_both_faces
class TestWorkers:
    async def test_each_running_worker_is_listed_once_by_its_name(
        self, face: Any, redisbox: RedisBox, prefix: str
    ) -> None:
        options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix}
        queue = face.Queue("mail", **options)
        assert await _done(face, queue.get_workers) == []
        assert await _done(face, queue.get_workers_count) == 0
        async with contextlib.AsyncExitStack() as stack:
            for name in ("w-1", "w:2", "w-1"):
                await stack.enter_async_context(Worker("mail", _nothing, name=name, **options))
            await stack.enter_async_context(Worker("mail", _nothing, **options))
            # Those of other queues, and connections that are no worker's.
            await stack.enter_async_context(Worker("mai", _nothing, name="other", **options))
            await stack.enter_async_context(Worker("mail", _nothing, connection=redisbox.url, prefix=f"{prefix}x"))
            job = await _done(face, queue.add, "never", {})
            with pytest.raises(toromq.JobNotFoundError):
                await _done(face, queue.wait_until_finished, f"{job.id}-other")

            async def listed() -> list[WorkerInfo]:
                workers: list[WorkerInfo] = await _done(face, queue.get_workers)
                assert sorted(worker.worker_name for worker in workers) == ["", "w-1", "w-1", "w:2"]
                return workers

            workers = await aeventually(listed)  # type: ignore[arg-type]
            assert await _done(face, queue.get_workers_count) == 4
        assert len({worker.id for worker in workers}) == 4
        assert await _done(face, queue.get_workers) == []
        await _done(face, queue.close)

    async def test_a_worker_that_is_busy_from_its_first_fetch_on_is_listed(
        self, face: Any, redisbox: RedisBox, prefix: str
    ) -> None:
        options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix}
        queue = face.Queue("mail", **options)
        await _done(face, queue.add, "n")
        begun, release = asyncio.Event(), asyncio.Event()

        async def wait_for_release(job: Any) -> None:
            begun.set()
            await release.wait()

        async with Worker("mail", wait_for_release, name="busy", **options):
            await begun.wait()

            async def listed() -> bool:
                workers: list[WorkerInfo] = await _done(face, queue.get_workers)
                return [worker.worker_name for worker in workers] == ["busy"]

            await aeventually(listed)
            release.set()
        await _done(face, queue.close)

    async def test_what_is_told_of_a_worker(self, face: Any, redisbox: RedisBox, prefix: str) -> None:
        options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix}
        queue = face.Queue("mail", **options)
        async with Worker("mail", _nothing, name="w-1", **options):

            async def idle() -> list[WorkerInfo]:
                workers: list[WorkerInfo] = await _done(face, queue.get_workers)
                return [worker for worker in workers if worker.fields["cmd"] == "bzpopmin"]

            worker = (await aeventually(idle))[0]
        assert isinstance(worker, WorkerInfo)
        assert (worker.name, worker.worker_name, worker.rawname) == ("mail", "w-1", f"{prefix}:bWFpbA==:w:w-1")
        assert worker.id > 0
        assert worker.addr.startswith("127.0.0.1:")
        assert 0 <= worker.idle <= worker.age < 120
        assert worker.fields["cmd"] == "bzpopmin"
        assert (worker.fields["id"], worker.fields["name"]) == (str(worker.id), worker.rawname)
        await _done(face, queue.close)

    async def test_a_server_that_lists_no_clients_says_so(
        self, face: Any, redisbox: RedisBox, redis: redispy.Redis, prefix: str
    ) -> None:
        user = f"u{prefix}"
        redis.acl_setuser(user, enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-client|list"])
        queue = face.Queue("mail", connection=redisbox.url.replace("//", f"//{user}:any@"), prefix=prefix)
        try:
            for getter in (queue.get_workers, queue.get_workers_count):
                with pytest.raises(ToroError, match=r"refused CLIENT LIST: .*workers are found by it"):
                    await _done(face, getter)
        finally:
            await _done(face, queue.close)
            redis.acl_deluser(user)


@_both_faces
class TestOldEvents:
    async def test_they_go_in_whole_blocks(
        self, face: Any, redisbox: RedisBox, redis: redispy.Redis, prefix: str
    ) -> None:
        queue = face.Queue("mail", connection=redisbox.url, prefix=prefix)
        key = f"{prefix}:mail:events"
        assert await _done(face, queue.trim_events, 0) == 0
        await _done(face, queue.add_bulk, [("n", {})] * 165)
        assert redis.xlen(key) == 330
        assert await _done(face, queue.trim_events, 150) == 100
        assert await _done(face, queue.trim_events, 150) == 0
        assert redis.xlen(key) == 230
        assert await _done(face, queue.trim_events, 0) == 230
        await _done(face, queue.close)

    @pytest.mark.parametrize("length", [-1, "1", None, 1.5, True])
    async def test_a_length_that_is_none_is_refused(self, face: Any, length: Any) -> None:
        queue = face.Queue("mail", connection="redis://127.0.0.1:1")
        with pytest.raises(ConfigurationError, match="max_length: got"):
            await _done(face, queue.trim_events, length)


async def _nothing(job: Any) -> None: ...
