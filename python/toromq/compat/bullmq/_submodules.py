"""The modules of bullmq, such as `bullmq.job`, under whatever name a program gave this package.

They would be files of two lines each. A program that puts this package into `sys.modules` as `bullmq` and imports
`bullmq.job` gets them from here, with the same classes in them, not with a second copy of each.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final

NAMES: Final = {
    "abort_controller": ("AbortController", "AbortError", "AbortSignal"),
    "custom_errors": ("DelayedError", "UnrecoverableError", "WaitingChildrenError"),
    "custom_errors.delayed_error": ("DelayedError",),
    "custom_errors.unrecoverable_error": ("UnrecoverableError",),
    "custom_errors.waiting_children_error": ("WaitingChildrenError",),
    "error_code": ("ErrorCode",),
    "event_emitter": ("EventEmitter",),
    "flow_producer": ("FlowProducer",),
    "job": ("Job", "optsFromJSON"),
    "job_scheduler": ("JobScheduler",),
    "queue": ("Queue",),
    "queue_events": ("QueueEvents",),
    "queue_events_producer": ("QueueEventsProducer",),
    "queue_keys": ("QueueKeys",),
    "types": (
        "BackoffOptions", "ConnectionOptions", "DeduplicationOptions", "JobOptions", "JobSchedulerJson",
        "JobSchedulerTemplateJson", "KeepJobs", "PromoteJobsOptions", "QueueBaseOptions", "QueueEventsOptions",
        "QueueEventsProducerOptions", "RepeatOptions", "RetryJobsOptions", "WorkerOptions",
    ),
    "types.backoff_options": ("BackoffOptions",),
    "types.connection_options": ("ConnectionOptions",),
    "types.deduplication_options": ("DeduplicationOptions",),
    "types.job_options": ("JobOptions",),
    "types.keep_jobs": ("KeepJobs",),
    "types.promote_jobs_options": ("PromoteJobsOptions",),
    "types.queue_events_options": ("QueueEventsOptions", "QueueEventsProducerOptions"),
    "types.queue_options": ("QueueBaseOptions",),
    "types.repeat_options": ("JobSchedulerJson", "JobSchedulerTemplateJson", "RepeatOptions"),
    "types.retry_jobs_options": ("RetryJobsOptions",),
    "types.worker_options": ("WorkerOptions",),
    "worker": ("Worker",),
}  # fmt: skip
_PACKAGES: Final = ("custom_errors", "types")


class Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and fills them."""

    def __init__(self, package: ModuleType, known: Mapping[str, Any]) -> None:
        """For a package; `known` are all names that its modules may have."""
        self._package = package
        self._known = known

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Where a module of the package comes from; None for all others."""
        name = self._name(fullname)
        if name is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=name in _PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        """Put its names in."""
        name = self._name(module.__name__)
        assert name is not None
        vars(module).update({known: self._known[known] for known in NAMES[name]})

    def _name(self, fullname: str) -> str | None:
        for name in NAMES:
            package = fullname.removesuffix(f".{name}")
            if package != fullname and sys.modules.get(package) is self._package:
                return name
        return None
