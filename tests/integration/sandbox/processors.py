"""Functions that tests run in child processes. What a test wants to know of a child it reads from the job in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import toromq
from toromq import SandboxJob, sync

_FIELDS = (
    "id", "token", "name", "data", "opts", "attempts_made", "attempts_started", "timestamp", "delay", "priority",
    "progress", "parent", "queue_name", "prefix", "queue_qualified_name", "processed_by", "stalled_counter",
    "processed_on", "is_cancelled", "cancel_reason",
)  # fmt: skip
_variable = contextvars.ContextVar("_variable", default="unset")
_runs: list[str] = []


class Odd(BaseException):
    """No Exception."""


class Hopeless(toromq.UnrecoverableError):
    """A user's own."""


def process(job: Any) -> str:
    return f"the function of {__name__}"


async def process_async(job: Any) -> str:
    return f"the function of {__name__}"


class Processor:
    def __call__(self, job: Any) -> str:
        return "called"

    @staticmethod
    def static(job: Any) -> str:
        return "static"


processor = Processor()


def closes(job: Any) -> str:
    if job.data == "close":
        os.closerange(3, 256)
    return "fine"


def pid(job: Any) -> int:
    return os.getpid()


async def pid_async(job: Any) -> int:
    await asyncio.sleep(0)
    return os.getpid()


def given(job: Any) -> Any:
    return job.data


async def given_async(job: Any) -> Any:
    await asyncio.sleep(0)
    return job.data


def fields(job: sync.SandboxJob[Any, Any]) -> str:
    assert type(job) is sync.SandboxJob
    return json.dumps({name: getattr(job, name) for name in _FIELDS})


async def fields_async(job: SandboxJob[Any, Any]) -> str:
    assert type(job) is SandboxJob
    return json.dumps({name: getattr(job, name) for name in _FIELDS})


def reports(job: sync.SandboxJob[Any, Any]) -> Any:
    job.update_progress({"done": 50})
    lines = [job.log("one"), job.log("två")]
    job.update_data({"step": [2, None]})
    return [lines, job.progress, job.data, job.get_state()]


async def reports_async(job: SandboxJob[Any, Any]) -> Any:
    await job.update_progress({"done": 50})
    lines = list(await asyncio.gather(job.log("one"), job.log("två")))
    await job.update_data({"step": [2, None]})
    return [lines, job.progress, job.data, await job.get_state()]


def refused(job: Any) -> list[str]:
    """What bad calls raise in the child."""
    said = []
    for call in (
        lambda: job.update_progress({"a": [1, {2}]}),
        lambda: job.log(5),
        lambda: job.update_data(float("nan")),
        lambda: job._calls.call("obliterate"),
    ):
        try:
            call()
        except toromq.ToroError as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def children(job: sync.SandboxJob[Any, Any]) -> Any:
    values, failures = job.get_children_values(), job.get_ignored_children_failures()
    return [values, failures, job.get_dependencies_count()._asdict()]


async def children_async(job: SandboxJob[Any, Any]) -> Any:
    values, failures = await job.get_children_values(), await job.get_ignored_children_failures()
    return [values, failures, (await job.get_dependencies_count())._asdict()]


def finds_itself_removed(job: Any) -> list[Any]:
    """Logs while it is removed; the test puts it back."""
    job.update_progress(1)
    _wait_for(f"{job.data}/removed")
    try:
        job.log("row")
    except toromq.JobNotFoundError as error:
        said = [str(error), error.code, error.job_id]
    open(f"{job.data}/asked", "w").close()
    _wait_for(f"{job.data}/restored")
    return said


def _wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)


def threads_log(job: Any) -> int:
    threads = [threading.Thread(target=lambda n=n: [job.log(f"{n}-{k}") for k in range(20)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(job.log("last"))


_left: list[Any] = []


def leaves_its_job(job: Any) -> str:
    """Uses the job of the run before, which has ended."""
    said = "nothing"
    if _left:
        try:
            _left[0].log("too late")
        except toromq.ToroError as error:
            said = str(error)
    _left.append(job)
    return said


def prints(job: Any) -> str:
    print("printed by", job.id)
    print("complained by", job.id, file=sys.stderr)
    os.write(1, b"\x00\x00\x00\x02{}\n")
    return sys.stdin.read()


def raises(job: Any) -> None:
    kind = job.data["raise"]
    if kind == "ValueError":
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError("why") from error
    if kind == "bare":
        raise ValueError
    if kind == "surrogate":
        raise ValueError("a\ud800b")
    if kind == "exit":
        sys.exit(3)
    raise {
        "Odd": Odd("odd"),
        "group": ExceptionGroup("several", [ValueError("one")]),
        "unrecoverable": toromq.UnrecoverableError("never"),
        "hopeless": Hopeless("no use"),
        "rate limit": toromq.RateLimitError(),
        "cancelled": asyncio.CancelledError("on its own"),
    }[kind]


async def raises_async(job: Any) -> None:
    await asyncio.sleep(0)
    raises(job)


def once(job: Any) -> str:
    """Is limited at its first run."""
    if job.attempts_started == 1:
        raise toromq.RateLimitError
    return f"start {job.attempts_started}"


def odd_result(job: Any) -> Any:
    return {"a": [1, {2}]}


def sets_context(job: Any) -> list[Any]:
    seen = _variable.get()
    _variable.set(job.id)
    _runs.append(job.id)
    return [seen, len(_runs)]


async def sets_context_async(job: Any) -> list[Any]:
    return sets_context(job)


_tasks: set[asyncio.Task[None]] = set()


async def leaves_a_task(job: Any) -> None:
    """Leaves a task that writes a file when the job has ended."""

    async def write() -> None:
        while not job._calls._is_over:
            await asyncio.sleep(0.001)
        open(job.data, "w").close()

    _tasks.add(asyncio.create_task(write()))


def notes(job: Any) -> int:
    """Writes its job and process down; for jobs that must run once."""
    with open(job.data, "a") as file:
        file.write(f"{job.id} {os.getpid()}\n")
    return os.getpid()


def meets(job: Any) -> int:
    """Waits until as many processes as the data says are in it at once."""
    folder, count = job.data
    open(os.path.join(folder, job.id), "w").close()
    while len(os.listdir(folder)) < count:
        time.sleep(0.002)
    return os.getpid()


# --- ends -------------------------------------------------------------------------------------------------------------


def _segfault() -> None:
    ctypes.string_at(0)


def dies(job: Any) -> Any:
    """Ends its process in the way that the data says, else gives its process id."""
    how = job.data
    if how == "segfault":
        _segfault()
    if how == "exit":
        os._exit(3)
    if how == "exit 0":
        os._exit(0)
    if how == "abort":
        os.abort()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


async def dies_async(job: Any) -> Any:
    await asyncio.sleep(0)
    return dies(job)


def dies_before_the_next(job: Any) -> int:
    """Ends its process at the moment when the next job is about to begin."""
    from toromq._sandbox import child

    child._Sandbox._begin = lambda *_: os._exit(9)  # type: ignore[method-assign]
    return os.getpid()


def waits(job: Any) -> str:
    """Reports its process id, and goes on until it is told to end: that may come before the report has an answer."""
    job.update_progress(os.getpid())
    while not job.is_cancelled:
        time.sleep(0.005)
    if job.data == "returns":
        return f"stopped: {job.cancel_reason}"
    job.raise_if_cancelled()
    raise AssertionError


async def waits_async(job: Any) -> str:
    try:
        await job.update_progress(os.getpid())
        await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        if job.data == "returns":
            return f"stopped: {error}"
        raise
    raise AssertionError


def stubborn(job: Any) -> None:
    """Does not look whether it was cancelled."""
    job.update_progress(os.getpid())
    while True:
        time.sleep(0.01)


def holds_interpreter(job: Any) -> None:
    """Not even a handler of Python's runs."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    job.update_progress(os.getpid())
    re.match("(a+)+$", "a" * 60 + "b")


async def stubborn_async(job: Any) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await job.update_progress(os.getpid())
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def stopped(job: Any) -> None:
    """Reads nothing any more."""
    job.update_progress(os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


def starts_another(job: Any) -> None:
    """Starts a process of its own, and hangs or dies."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    job.update_progress([os.getpid(), child.pid])
    if job.data == "dies":
        os._exit(5)
    time.sleep(600)


def forks(job: Any) -> Any:
    """A fork of the child holds none of what leads to the worker, and may die as it likes."""
    forked = os.fork()
    if forked == 0:
        try:
            job.log("from a fork")
        except toromq.ToroError:
            os._exit(7)
        os._exit(0)
    return [os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]), job.log("from the child")]


def leaves_a_fork(job: Any) -> None:
    """Dies while a fork of it lives."""
    forked = os.fork()
    if forked == 0:
        os.setsid()
        time.sleep(600)
    job.update_progress(forked)
    os._exit(4)


def hangs_at_exit(job: Any) -> int:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return os.getpid()


def touches_at_exit(job: Any) -> int:
    import atexit

    path = job.data
    atexit.register(lambda: open(path, "w").close())
    return os.getpid()


def waits_for_a_file(job: Any) -> str:
    job.update_progress(os.getpid())
    _wait_for(job.data)
    return "found"


# --- moves and types --------------------------------------------------------------------------------------------------


def moves(job: sync.SandboxJob[Any, Any]) -> Any:
    """Is moved at its first start, in the way that the data says."""
    if job.attempts_started > 1:
        return f"start {job.attempts_started}"
    if job.data == "to delayed":
        job.move_to_delayed(int(time.time() * 1000) + 1)
        raise toromq.DelayedError
    if job.data == "delayed":
        raise toromq.DelayedError(delay=1)
    if job.data == "delayed for long":
        raise toromq.DelayedError(delay=3_600_000)
    if job.data == "to wait":
        job.move_to_wait()
        raise toromq.WaitingError
    if job.data == "waiting":
        raise toromq.WaitingError
    return job.move_to_waiting_children()


async def moves_async(job: SandboxJob[Any, Any]) -> Any:
    if job.attempts_started == 1 and job.data == "to delayed":
        await job.move_to_delayed(int(time.time() * 1000) + 1)
        raise toromq.DelayedError
    if job.attempts_started == 1 and job.data == "to wait":
        await job.move_to_wait()
        raise toromq.WaitingError
    if job.attempts_started == 1 and job.data == "none":
        return await job.move_to_waiting_children()
    return moves(job)  # type: ignore[arg-type]


def parent(job: sync.SandboxJob[Any, Any]) -> Any:
    """Waits for the child that the data names, then gives what it returned."""
    if job.move_to_waiting_children(child=job.data):
        raise toromq.WaitingChildrenError
    return job.get_children_values()


async def parent_async(job: SandboxJob[Any, Any]) -> Any:
    if await job.move_to_waiting_children(child=job.data):
        raise toromq.WaitingChildrenError
    return await job.get_children_values()


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]


def typed(job: sync.SandboxJob[Order, Order]) -> Order:
    order = job.data
    assert type(order) is Order
    job.update_data(Order(order.number, ["changed"]))
    assert job.data.lines == ["changed"]
    # A wrong one is refused in the child.
    if order.number == 13:
        return Order("thirteen", [])  # type: ignore[arg-type]
    return Order(order.number + 1, [*order.lines, "more"])
