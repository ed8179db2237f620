"""The scripted processors of the Node peer once more, for our workers: the same names do the same things.

Each is written once, as a coroutine. :func:`run_blocking` runs it in a thread, where nothing it awaits has to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from datetime import UTC, datetime, timedelta
from typing import Any

Script = dict[str, Any]


class Gates:
    """One future per job; it may be opened before the processor has reached it, and from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._futures: dict[str, Future[Any]] = defaultdict(Future)

    def open(self, job_id: str, value: Any, error: str | None) -> None:
        """Lets the job's ``gate`` processor return the value, or raise."""
        with self._guard:
            future = self._futures[job_id]
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(RuntimeError(error))

    async def passed(self, job_id: str) -> Any:
        """Waits until the job's gate is open."""
        with self._guard:
            future = self._futures[job_id]
        try:
            return await self._result(future)
        finally:
            if future.done():
                with self._guard:
                    self._futures.pop(job_id, None)

    async def slept(self, seconds: float) -> None:
        """Waits for so long."""
        await asyncio.sleep(seconds)

    async def _result(self, future: Future[Any]) -> Any:
        # Shielded: a cancelled processor must not cancel what a later attempt waits for.
        return await asyncio.shield(asyncio.wrap_future(future))


class BlockingGates(Gates):
    """Gates that hold a thread, not a task."""

    def give_up(self) -> None:
        """Fails every processor that waits now or later: a thread can't be cancelled, and must not outlive its test."""
        with self._guard:
            self._futures, waiting = defaultdict(_abandoned), list(self._futures.values())
        for future in waiting:
            # Else it was opened before.
            with contextlib.suppress(InvalidStateError):
                future.set_exception(_nobody())

    async def slept(self, seconds: float) -> None:
        time.sleep(seconds)

    async def _result(self, future: Future[Any]) -> Any:
        return future.result()


def _abandoned() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(_nobody())
    return future


def _nobody() -> RuntimeError:
    return RuntimeError("nobody opens this gate any more")


async def run_script(script: Script, job: Any, gates: Gates) -> Any:
    """Runs the scripted processor ``script["name"]`` on a job of either face."""
    return await _PROCESSORS[script["name"]](job, script, gates)


def run_blocking(script: Script, job: Any, gates: BlockingGates) -> Any:
    """The same without an event loop: all that a script does to a blocking job is done when the call returns."""
    steps = run_script(script, job, gates)
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value
    steps.close()
    raise AssertionError(f"the script {script['name']} waits for an event loop")


async def _done(answer: Any) -> Any:
    # A coroutine from an async job; from a blocking one, what it gave.
    return await answer if inspect.isawaitable(answer) else answer


def _setting(job: Any, script: Script, name: str, default: Any = None) -> Any:
    # What a job's data says wins over what the worker was started with.
    if isinstance(job.data, dict) and name in job.data:
        return job.data[name]
    return script.get(name, default)


async def _echo(job: Any, script: Script, gates: Gates) -> Any:
    return job.data


async def _value(job: Any, script: Script, gates: Gates) -> Any:
    return _setting(job, script, "value")


async def _undefined(job: Any, script: Script, gates: Gates) -> None:
    return None


async def _fail(job: Any, script: Script, gates: Gates) -> None:
    raise RuntimeError(_setting(job, script, "message", "scripted failure"))


async def _fail_times(job: Any, script: Script, gates: Gates) -> Any:
    attempt = job.attempts_made + 1
    if attempt <= _setting(job, script, "times", 1):
        raise RuntimeError(f"failure {attempt}")
    return _setting(job, script, "value")


async def _unrecoverable(job: Any, script: Script, gates: Gates) -> None:
    from toromq import UnrecoverableError

    raise UnrecoverableError(_setting(job, script, "message", "scripted unrecoverable failure"))


async def _progress(job: Any, script: Script, gates: Gates) -> Any:
    for value in _setting(job, script, "progress", []):
        await _done(job.update_progress(value))
    return _setting(job, script, "value")


async def _log(job: Any, script: Script, gates: Gates) -> list[int]:
    return [await _done(job.log(row)) for row in _setting(job, script, "rows", [])]


async def _update_data(job: Any, script: Script, gates: Gates) -> Any:
    following, fail = _setting(job, script, "next"), _setting(job, script, "fail", False)
    if job.attempts_made == 0:
        await _done(job.update_data(following))
        if fail:
            raise RuntimeError("data updated, try again")
    return job.data


async def _move(job: Any, script: Script, gates: Gates) -> Any:
    from toromq import DelayedError, WaitingChildrenError, WaitingError

    to = "nowhere" if job.attempts_started > 1 else _setting(job, script, "to")
    if to == "delayed":
        due = datetime.now(UTC) + timedelta(milliseconds=_setting(job, script, "ms", 0))
        await _done(job.move_to_delayed(due))
        raise DelayedError
    if to == "wait":
        await _done(job.move_to_wait())
        raise WaitingError
    if to == "waiting-children" and await _done(job.move_to_waiting_children()):
        raise WaitingChildrenError
    return job.attempts_started


async def _children(job: Any, script: Script, gates: Gates) -> dict[str, list[Any]]:
    values = (await _done(job.get_children_values())).values()
    ignored = (await _done(job.get_ignored_children_failures())).values()
    return {"values": sorted(values, key=json.dumps), "ignored": sorted(ignored)}


async def _have_children(job: Any, script: Script, gates: Gates) -> Any:
    from toromq import WaitingChildrenError

    if job.attempts_started == 1:
        for n in range(_setting(job, script, "count", 1)):
            await _done(job._queue.add("value", {"value": n}, parent=job, priority=n))
        if await _done(job.move_to_waiting_children()):
            raise WaitingChildrenError
    return await _children(job, script, gates)


async def _tree(job: Any, script: Script, gates: Gates) -> str:
    from toromq import UnrecoverableError, WaitingChildrenError

    await gates.slept(job.data["ms"] / 1000)
    if await _done(job.move_to_waiting_children()):
        raise WaitingChildrenError
    if job.data["fatal"]:
        raise UnrecoverableError(f"{job.id} is fatal")
    if job.attempts_made < job.data["fails"]:
        raise RuntimeError(f"{job.id} failed {job.attempts_made + 1} times")
    return f"result of {job.id}"


async def _gate(job: Any, script: Script, gates: Gates) -> Any:
    return await gates.passed(job.id)


async def _sleep(job: Any, script: Script, gates: Gates) -> Any:
    await gates.slept(_setting(job, script, "ms", 0) / 1000)
    return _setting(job, script, "value")


async def _rate_limit(job: Any, script: Script, gates: Gates) -> Any:
    from toromq import RateLimitError

    if job.attempts_started <= _setting(job, script, "times", 1):
        raise RateLimitError(retry_after=_setting(job, script, "ms", 0) or None)
    return _setting(job, script, "value")


async def _block_forever(job: Any, script: Script, gates: Gates) -> None:
    # Tests open gates, but never that of this script.
    await gates.passed(job.id)


async def _until_cancelled(job: Any, script: Script, gates: Gates) -> None:
    # A coroutine is cancelled where it waits.
    if inspect.iscoroutinefunction(job.log):
        await asyncio.get_running_loop().create_future()
    job._cancellation.wait()
    job.raise_if_cancelled()


async def _by_name(job: Any, script: Script, gates: Gates) -> Any:
    return await run_script({**script, "name": job.name}, job, gates)


_PROCESSORS: dict[str, Callable[[Any, Script, Gates], Coroutine[Any, Any, Any]]] = {
    "echo": _echo,
    "value": _value,
    "undefined": _undefined,
    "fail": _fail,
    "fail_times": _fail_times,
    "unrecoverable": _unrecoverable,
    "progress": _progress,
    "log": _log,
    "update_data": _update_data,
    "move": _move,
    "children": _children,
    "have_children": _have_children,
    "tree": _tree,
    "gate": _gate,
    "sleep": _sleep,
    "rate_limit": _rate_limit,
    "block_forever": _block_forever,
    "until_cancelled": _until_cancelled,
    "by_name": _by_name,
}
