"""The blocking face: plain functions in threads, in a program that runs until it is told to end.

python examples/images.py             the worker; ends with Ctrl-C, when the jobs in flight have
python examples/images.py add a.png   adds a job, waits for it, and says what it returned
"""

import os
import sys
from datetime import timedelta
from typing import Any

import toromq
from toromq.sync import Job, Queue, Worker

REDIS = os.environ.get("TOROMQ_URL", "embedded:.toromq")


def resize(job: Job[Any, Any]) -> dict[str, int]:
    """Runs in a thread; the job's methods block."""
    job.log(f"resizing {job.data['path']}")
    return {"width": 640}


def add(path: str) -> None:
    with Queue("images", connection=REDIS) as queue:
        job = queue.add("resize", {"path": path}, delay=timedelta(milliseconds=50), priority=2, remove_on_complete=1000)
        print(path, job.wait_until_finished(timeout=timedelta(seconds=30)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"]:
        add(sys.argv[2])
    else:
        worker = Worker("images", resize, connection=REDIS, concurrency=8)
        worker.on("ready", lambda: print("ready", flush=True))
        toromq.run(worker)
