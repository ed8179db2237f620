"""Every public name, method, parameter, attribute and option of bullmq 3.4.4 is here, or is listed with the reason."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import toromq.compat.bullmq as ours
from tests.compat.snapshot import FILE, parameters

_SURFACE: dict[str, Any] = json.loads(FILE.read_text())
_ENGINE = "part of how bullmq reaches Redis, which is the engine here"
_LOOP = "part of the worker's loop, which is the engine here"

# What has no counterpart, and why. Whatever is in none of these tables is compared.
MODULES = {
    "backend": _ENGINE,
    "backends": _ENGINE,
    "backends.redis_backend": _ENGINE,
    "backoffs": _LOOP,
    "lock_manager": _LOOP,
    "redis_connection": _ENGINE,
    "scripts": _ENGINE,
    "timer": _LOOP,
    "utils": _ENGINE,
}
NAMES = {
    "LockManager": _LOOP,
    "MinimalQueue": _ENGINE,
    "getCompleted": _LOOP,
    "getReturnValue": "job.returnvalue is decoded",
    "default_repeat_strategy": "when the next job is due is for all clients to agree on, and the engine's affair",
}
# Methods that are there and raise NotSupportedError whatever they are given.
REFUSED = {
    "Job.updateStacktrace": _LOOP,
    "Worker.cancelProcessing": _LOOP,
    "Worker.extendLocks": _LOOP,
    "Worker.getBlockTimeout": _LOOP,
    "Worker.isConnectionError": _LOOP,
    "Worker.moveToActive": _LOOP,
    "Worker.nextJobFromJobData": _LOOP,
    "Worker.retryIfFailed": _LOOP,
    "Worker.runStalledJobsCheck": _LOOP,
    "Worker.waitForJob": _LOOP,
}
METHODS = {
    "FlowProducer.addChildren": "a part of add",
    "FlowProducer.addNode": "a part of add",
    "FlowProducer.addNodes": "a part of add",
    "FlowProducer.queueFromNode": "a part of add",
    "Worker.maximumBlockTimeout": _LOOP,
    "Worker.minimumBlockTimeout": _LOOP,
}
ATTRIBUTES = {
    "backend": _ENGINE,
    "bclient": _ENGINE,
    "blockUntil": _LOOP,
    "blockingRedisConnection": _ENGINE,
    "client": _ENGINE,
    "clientName": _ENGINE,
    "drained": _LOOP,
    "jobs": _LOOP,
    "limitUntil": _LOOP,
    "lockManager": _LOOP,
    "processing": _LOOP,
    "redisConnection": _ENGINE,
    "repeat_strategy": "when the next job is due is for all clients to agree on, and the engine's affair",
    "resume_event": _LOOP,
    "scripts": _ENGINE,
    "waiting": _LOOP,
}


def _compared(part: str) -> list[tuple[str, Any]]:
    return [(f"{owner}.{name}", value) for owner, found in _SURFACE[part].items() for name, value in found.items()]


@pytest.mark.parametrize("name", [name for name in _SURFACE["names"] if name not in NAMES])
def test_a_class_is_there(name: str) -> None:
    assert name in ours.__all__
    assert inspect.isclass(getattr(ours, name))


@pytest.mark.parametrize("module", [name for name in _SURFACE["modules"] if name not in MODULES])
def test_a_module_is_there(module: str) -> None:
    found = importlib.import_module(f"toromq.compat.bullmq.{module}")
    for name in _SURFACE["modules"][module]:
        if name not in NAMES:
            assert hasattr(found, name), f"from bullmq.{module} import {name}"


@pytest.mark.parametrize(
    ("method", "expected"),
    [(name, value) for name, value in _compared("methods") if name not in {**METHODS, **REFUSED}
     and name.partition(".")[0] not in NAMES],
)  # fmt: skip
def test_a_method_takes_what_it_takes_there(method: str, expected: list[list[Any]] | None) -> None:
    owner, _, name = method.partition(".")
    kind = getattr(ours, owner)
    if expected is None:
        assert isinstance(inspect.getattr_static(kind, name), property)
        return
    assert parameters(getattr(kind, name)) == expected


@pytest.mark.parametrize("method", sorted(REFUSED))
def test_a_method_that_can_not_be_offered_says_so(method: str) -> None:
    owner, _, name = method.partition(".")
    kind = getattr(ours, owner)
    with pytest.raises(ours.NotSupportedError, match=name):
        getattr(kind, name)(kind.__new__(kind))


def _instances() -> dict[str, Any]:
    nowhere = {"connection": "redis://127.0.0.1:1"}
    queue = ours.Queue("nowhere", nowhere)
    return {
        "AbortController": ours.AbortController(),
        "AbortError": ours.AbortError(),
        "FlowProducer": ours.FlowProducer(nowhere["connection"]),
        "Job": ours.Job(queue, "name", {}),
        "JobScheduler": queue.jobScheduler,
        "Queue": queue,
        "QueueEvents": ours.QueueEvents("nowhere", {**nowhere, "autorun": False}),
        "QueueEventsProducer": ours.QueueEventsProducer("nowhere", nowhere),
        "Worker": ours.Worker("nowhere", None, nowhere),
    }


@pytest.mark.parametrize("owner", list(_SURFACE["attributes"]))
def test_an_object_has_the_attributes_it_has_there(owner: str) -> None:
    instance = _instances()[owner]
    for name in _SURFACE["attributes"][owner]:
        if name not in ATTRIBUTES:
            assert hasattr(instance, name), f"{owner}.{name}"


@pytest.mark.parametrize("options", list(_SURFACE["options"]))
def test_options_have_the_keys_they_have_there(options: str) -> None:
    assert set(_SURFACE["options"][options]) <= set(getattr(ours.types, options).__annotations__)


def test_the_tables_of_exceptions_name_nothing_that_does_not_exist() -> None:
    """A reason that nothing needs any more must go."""
    names = {name for found in _SURFACE["modules"].values() for name in found}
    methods = {name for name, _ in _compared("methods")}
    attributes = {name for found in _SURFACE["attributes"].values() for name in found}
    assert set(MODULES) <= set(_SURFACE["modules"])
    assert set(NAMES) <= names
    assert {**METHODS, **REFUSED}.keys() <= methods
    assert set(ATTRIBUTES) <= attributes


def test_the_file_says_what_the_installed_bullmq_offers() -> None:
    """In a process of its own: bullmq warns of things that are errors here."""
    code = "from tests.compat.snapshot import text; print(text(), end='')"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert told.stdout == FILE.read_text()


def test_names_come_in_under_the_name_bullmq() -> None:
    """In a process of its own: this one may have the real bullmq."""
    code = """
import sys, toromq.compat.bullmq
sys.modules["bullmq"] = toromq.compat.bullmq
import bullmq
import bullmq.worker
from bullmq import Job, types
from bullmq.custom_errors import UnrecoverableError
from bullmq.custom_errors.delayed_error import DelayedError
from bullmq.job import Job as SameJob
from bullmq.types import JobOptions
from bullmq.types.job_options import JobOptions as SameOptions
assert bullmq is toromq.compat.bullmq
assert SameJob is Job is bullmq.Job
assert bullmq.worker.Worker is bullmq.Worker
assert UnrecoverableError is toromq.UnrecoverableError and DelayedError is toromq.DelayedError
assert SameOptions is JobOptions is types.JobOptions
try:
    import bullmq.nothing
except ModuleNotFoundError as error:
    assert error.name == "bullmq.nothing"
else:
    raise AssertionError("there is no such module")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
