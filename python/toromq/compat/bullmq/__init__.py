"""The names of the package bullmq (3.4) over toromq: `import toromq.compat.bullmq as bullmq`.

For a program whose files say `import bullmq`, say once, before they are imported:

    sys.modules["bullmq"] = toromq.compat.bullmq

Each class has the real one behind it as its attribute `toromq`, so that a program can move bit by bit.
"""

import importlib
import sys

from toromq.compat.bullmq import _types as types
from toromq.compat.bullmq._abort import AbortController, AbortError, AbortSignal
from toromq.compat.bullmq._adapter import EventEmitter, NotSupportedError
from toromq.compat.bullmq._flow import FlowProducer
from toromq.compat.bullmq._job import Job
from toromq.compat.bullmq._keys import ErrorCode, QueueKeys
from toromq.compat.bullmq._options import optsFromJSON
from toromq.compat.bullmq._queue import Queue
from toromq.compat.bullmq._queue_events import QueueEvents, QueueEventsProducer
from toromq.compat.bullmq._scheduler import JobScheduler
from toromq.compat.bullmq._submodules import NAMES, Submodules
from toromq.compat.bullmq._worker import Worker
from toromq.errors import DelayedError, RateLimitError, UnrecoverableError, WaitingChildrenError, WaitingError

__all__ = [
    "AbortController",
    "AbortError",
    "AbortSignal",
    "DelayedError",
    "ErrorCode",
    "EventEmitter",
    "FlowProducer",
    "Job",
    "JobScheduler",
    "NotSupportedError",
    "Queue",
    "QueueEvents",
    "QueueEventsProducer",
    "QueueKeys",
    "RateLimitError",
    "UnrecoverableError",
    "WaitingChildrenError",
    "WaitingError",
    "Worker",
    "optsFromJSON",
    "types",
]

_found = Submodules(sys.modules[__name__], {**vars(types), **globals()})
sys.meta_path.append(_found)
for _name in NAMES:
    # As in bullmq, where importing the package imports all of them.
    importlib.import_module(f"{__name__}.{_name}")
