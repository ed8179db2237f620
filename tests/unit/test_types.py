"""The option dictionaries say what the classes take."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

import pytest

import toromq
from toromq import sync
from toromq._queue_base import QueueBase
from toromq._worker_base import WorkerBase
from toromq.types import QueueOptions, WorkerOptions


@pytest.mark.parametrize(
    ("options", "init"),
    [(QueueOptions, QueueBase.__init__), (WorkerOptions, WorkerBase.__init__)],
    ids=["queue", "worker"],
)
def test_a_dictionary_of_options_has_every_option_and_its_type(options: Any, init: Any) -> None:
    taken = {
        name: parameter.annotation
        for name, parameter in signature(init).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }
    stated = {name: getattr(kind, "__forward_arg__", kind) for name, kind in options.__annotations__.items()}
    for types in (taken, stated):
        types.update(data_type="", result_type="")  # Generic in a class, where a dictionary can't be
    assert stated == taken


def test_both_faces_have_the_same_constructor() -> None:
    assert signature(toromq.Worker.__init__) == signature(sync.Worker.__init__)
    assert signature(toromq.Queue.__init__) == signature(sync.Queue.__init__)
