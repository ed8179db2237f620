"""``restore_marker``: the marker a worker took is put back where there is still something to do."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NOW, NewJob, Queue


@pytest.mark.parametrize(
    ("jobs", "settings", "expected"),
    [
        pytest.param([], {}, {}, id="nothing"),
        pytest.param([NewJob()], {}, {"0": 0}, id="waiting"),
        pytest.param([NewJob(priority=1)], {}, {"0": 0}, id="prioritized"),
        pytest.param([NewJob(delay=900), NewJob(delay=500)], {}, {"1": NOW + 500}, id="delayed"),
        pytest.param([NewJob(), NewJob(delay=500)], {}, {"0": 0, "1": NOW + 500}, id="both"),
        pytest.param([NewJob(), NewJob(delay=500)], {"paused": "1"}, {"1": NOW + 500}, id="paused"),
        pytest.param([NewJob()], {"concurrency": "1"}, {}, id="at its concurrency"),
        pytest.param([NewJob()], {"concurrency": "2"}, {"0": 0}, id="below its concurrency"),
    ],
)
def test_the_marker_says_what_there_is(
    mail: Queue, jobs: list[NewJob], settings: dict[str, str], expected: dict[str, float]
) -> None:
    mail.activate(NewJob())
    if jobs:
        mail.add(*jobs)
    mail.redis.delete(mail.key("marker"))
    mail.put("meta", settings)
    assert mail.call("restore_marker") == (1, {"marker": expected} if expected else {})
    assert mail.call("restore_marker") == (1, {})


def test_the_fraction_of_a_due_time_is_kept(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=500), NewJob(delay=500))
    mail.redis.zrem(mail.key("delayed"), "a")
    mail.redis.delete(mail.key("a"), mail.key("marker"))
    assert mail.call("restore_marker").changed == {"marker": {"1": NOW + 500 + 1 / 4096}}
