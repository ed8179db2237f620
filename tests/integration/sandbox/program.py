"""A program whose worker runs its jobs in child processes. It prints lines of JSON.

Arguments: what it does, URL, prefix, and the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import toromq
from toromq import sync

HOW, URL, PREFIX, PROCESSOR = sys.argv[1:]
OPTIONS: dict[str, Any] = {"connection": URL, "prefix": PREFIX, "concurrency": 2}


def _say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _worker(face: Any = sync, queue: str = "q") -> Any:
    worker = face.Worker(queue, PROCESSOR, **OPTIONS)
    worker.on("closing", lambda reason: _say(closing=reason))
    worker.on("progress", lambda job, progress: _say(progress=progress))
    worker.on("completed", lambda job, result: _say(completed=result))
    worker.on("failed", lambda job, error: _say(failed=str(error)))
    return worker


def stay() -> None:
    """Works until it is killed."""
    with _worker():
        threading.Event().wait()


def run() -> None:
    """Works as programs do."""
    toromq.run(_worker(toromq))


def run_blocking() -> None:
    """The same with a blocking worker."""
    toromq.run(_worker())


def end() -> None:
    """Ends without closing its worker, once a job was completed; another may run."""
    worker = _worker()
    completed = threading.Event()
    worker.on("completed", lambda job, result: completed.set())
    worker.__enter__()
    completed.wait()


def end_loop_and_stay() -> None:
    """The event loop ends under its worker, and the program goes on."""
    end_loop()
    _say(ended=True)
    threading.Event().wait()


def end_loop() -> None:
    """The same as `end` with an event loop that ends under its worker."""

    async def main() -> None:
        worker = _worker(toromq)
        completed = asyncio.Event()
        worker.on("completed", lambda job, result: completed.set())
        await worker.__aenter__()
        await completed.wait()

    asyncio.run(main())


def fork() -> None:
    """Forks while its worker has a child; the fork works with a child of its own, and stays when that is done."""
    worker = _worker()
    completed = threading.Semaphore(0)
    worker.on("completed", lambda job, result: completed.release())
    with worker:
        completed.acquire()
        if os.fork() == 0:
            _fork()
        completed.acquire()
        threading.Event().wait()


def _fork() -> None:
    worker = _worker(queue="forked")
    completed = threading.Event()
    worker.on("completed", lambda job, result: completed.set())
    with worker:
        completed.wait()
    _say(forked=os.getpid())
    signal.pause()


def _sockets() -> int:
    """How many this process has open."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        # The descriptor that listed them is gone.
        with contextlib.suppress(OSError):
            count += "socket" in os.readlink(f"/proc/self/fd/{number}")
    return count


def fork_while_starting() -> None:
    """Forks again and again while threads start children, which know nothing of each other."""
    from toromq._sandbox import process
    from toromq._sandbox.pool import Pool
    from toromq.options import SandboxOptions

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            # So that forks fall into it.
            time.sleep(0.03)

    job = sync.Job(sync.Queue("q"), ("1", "", 0, 0, {}))
    process.subprocess.Popen = Slow  # type: ignore[attr-defined,misc]
    forks = []
    stop = threading.Event()

    def start() -> None:
        while not stop.is_set():
            pool = Pool(PROCESSOR, SandboxOptions())
            pool._put_back(pool._take(job))
            pool.close()

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            # A pool of its own must work at once.
            pool = Pool(PROCESSOR, SandboxOptions())
            pool._put_back(pool._take(job))
            pool.close()
            os._exit(_sockets())
        forks.append(pid)
        time.sleep(0.005)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forks]
    stop.set()
    for thread in threads:
        thread.join()
    _say(codes=codes)


if __name__ == "__main__":
    globals()[HOW]()
