"""Node's and our clients on one queue, in any order, agree with a small model of a queue after every step."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.bench import Bench
from tests.property.rules import QueueMachine


@pytest.mark.timeout(3600)
def test_random_operations_of_all_clients_leave_what_the_model_says(
    bench: Bench, profile: settings, least_steps: int
) -> None:
    """Fails with the shortest list of operations that shows a difference."""
    run_state_machine_as_test(lambda: QueueMachine(bench), settings=profile)
    assert bench.steps.total() >= least_steps
