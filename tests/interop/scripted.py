"""The scripted processors of the Node peer once more, for our worker: the same names do the same things."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toromq import Job

Script = dict[str, Any]


class Gates:
    """One future per job; it may be opened before the processor has reached it."""

    def __init__(self) -> None:
        self._futures: dict[str, asyncio.Future[Any]] = defaultdict(lambda: asyncio.get_running_loop().create_future())

    def open(self, job_id: str, value: Any, error: str | None) -> None:
        """Lets the job's ``gate`` processor return the value, or raise."""
        future = self._futures[job_id]
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(RuntimeError(error))

    async def passed(self, job_id: str) -> Any:
        """Waits until the job's gate is open."""
        try:
            # Shielded: a cancelled processor must not cancel what a later attempt waits for.
            return await asyncio.shield(self._futures[job_id])
        finally:
            if self._futures[job_id].done():
                del self._futures[job_id]


async def run_script(script: Script, job: Job[Any, Any], gates: Gates) -> Any:
    """Runs the scripted processor ``script["name"]`` on a job."""
    return await _PROCESSORS[script["name"]](job, script, gates)


def _setting(job: Job[Any, Any], script: Script, name: str, default: Any = None) -> Any:
    # What a job's data says wins over what the worker was started with.
    if isinstance(job.data, dict) and name in job.data:
        return job.data[name]
    return script.get(name, default)


async def _echo(job: Job[Any, Any], script: Script, gates: Gates) -> Any:
    return job.data


async def _value(job: Job[Any, Any], script: Script, gates: Gates) -> Any:
    return _setting(job, script, "value")


async def _undefined(job: Job[Any, Any], script: Script, gates: Gates) -> None:
    return None


async def _fail(job: Job[Any, Any], script: Script, gates: Gates) -> None:
    raise RuntimeError(_setting(job, script, "message", "scripted failure"))


async def _fail_times(job: Job[Any, Any], script: Script, gates: Gates) -> Any:
    attempt = job.attempts_made + 1
    if attempt <= _setting(job, script, "times", 1):
        raise RuntimeError(f"failure {attempt}")
    return _setting(job, script, "value")


async def _unrecoverable(job: Job[Any, Any], script: Script, gates: Gates) -> None:
    from toromq import UnrecoverableError

    raise UnrecoverableError(_setting(job, script, "message", "scripted unrecoverable failure"))


async def _progress(job: Job[Any, Any], script: Script, gates: Gates) -> Any:
    for value in _setting(job, script, "progress", []):
        await job.update_progress(value)
    return _setting(job, script, "value")


async def _log(job: Job[Any, Any], script: Script, gates: Gates) -> list[int]:
    return [await job.log(row) for row in _setting(job, script, "rows", [])]


async def _update_data(job: Job[Any, Any], script: Script, gates: Gates) -> Any:
    following, fail = _setting(job, script, "next"), _setting(job, script, "fail", False)
    if job.attempts_made == 0:
        await job.update_data(following)
        if fail:
            raise RuntimeError("data updated, try again")
    return job.data


async def _gate(job: Job[Any, Any], script: Script, gates: Gates) -> Any:
    return await gates.passed(job.id)


async def _block_forever(job: Job[Any, Any], script: Script, gates: Gates) -> None:
    await asyncio.Event().wait()


async def _by_name(job: Job[Any, Any], script: Script, gates: Gates) -> Any:
    return await run_script({**script, "name": job.name}, job, gates)


_PROCESSORS: dict[str, Callable[[Any, Script, Gates], Awaitable[Any]]] = {
    "echo": _echo,
    "value": _value,
    "undefined": _undefined,
    "fail": _fail,
    "fail_times": _fail_times,
    "unrecoverable": _unrecoverable,
    "progress": _progress,
    "log": _log,
    "update_data": _update_data,
    "gate": _gate,
    "block_forever": _block_forever,
    "by_name": _by_name,
}
