"""``set_rate_limit``: a limit by hand, and its end."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import LONG_MS, Expiring, NewJob, Queue

# For a second; whoever sleeps under a limit reads it.
WOKEN = Expiring([{"limit": "changed"}])


@pytest.mark.parametrize("counter", [None, 3, 2**53 - 1])
def test_a_limit_by_hand_takes_the_place_of_any_window(mail: Queue, counter: int | None) -> None:
    mail.add(NewJob())
    if counter is not None:
        mail.redis.set(mail.key("limiter"), counter, px=LONG_MS // 10)
    expected = {} if counter == 2**53 - 1 else {"limiter": Expiring(str(2**53 - 1))}
    assert mail.call("set_rate_limit", duration_ms=LONG_MS) == (1, expected)
    assert LONG_MS / 2 < mail.redis.pttl(mail.key("limiter")) <= LONG_MS


def test_nothing_starts_until_it_ends(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    mail.call("set_rate_limit", duration_ms=LONG_MS)
    limits = {"limiter_max": 1000, "limiter_duration": 900}
    reply, changed = mail.finish(want=1, **limits)
    assert (reply[1][0], changed) == ([], {})
    assert mail.call("set_rate_limit", duration_ms="").reply == 1
    assert [job[0] for job in mail.finish(want=1, **limits).reply[1][0]] == ["a"]


@pytest.mark.parametrize(
    ("jobs", "settings", "wakes"),
    [
        pytest.param([NewJob()], {}, True, id="waiting"),
        pytest.param([NewJob(priority=1)], {}, True, id="prioritized"),
        pytest.param([NewJob(delay=500)], {}, False, id="delayed"),
        pytest.param([], {}, False, id="nothing"),
        pytest.param([NewJob()], {"paused": "1"}, False, id="paused"),
        pytest.param([NewJob()], {"concurrency": "1"}, False, id="at its concurrency"),
    ],
)
def test_its_end_wakes_a_worker_for_what_may_start(
    mail: Queue, jobs: list[NewJob], settings: dict[str, str], wakes: bool
) -> None:
    mail.activate(NewJob())
    if jobs:
        mail.add(*jobs)
    mail.put("meta", settings)
    mail.redis.set(mail.key("limiter"), 3, px=LONG_MS)
    mail.redis.delete(mail.key("marker"))
    expected = {"limiter": None, "limiter:wake": WOKEN, **({"marker": {"0": 0}} if wakes else {})}
    assert mail.call("set_rate_limit", duration_ms="") == (1, expected)


def test_what_would_wake_workers_is_left_alone_where_it_is_something_else(mail: Queue) -> None:
    mail.redis.set(mail.key("limiter"), 3, px=LONG_MS)
    mail.redis.hset(mail.key("limiter:wake"), "name", "a job's")
    assert mail.call("set_rate_limit", duration_ms="") == (1, {"limiter": None})
    assert mail.redis.pttl(mail.key("limiter:wake")) == -1


def test_only_the_newest_change_is_kept_for_a_second(mail: Queue) -> None:
    for _ in range(3):
        mail.redis.set(mail.key("limiter"), 3, px=LONG_MS)
        mail.call("set_rate_limit", duration_ms="")
    assert mail.redis.xlen(mail.key("limiter:wake")) == 1
    assert 0 < mail.redis.pttl(mail.key("limiter:wake")) <= 1000


def test_there_may_be_none_to_end(mail: Queue) -> None:
    assert mail.call("set_rate_limit", duration_ms="") == (0, {})
    mail.add(NewJob())
    mail.redis.delete(mail.key("marker"))
    # Whoever waits may have missed the end of it, so it is told again.
    assert mail.call("set_rate_limit", duration_ms="") == (0, {"marker": {"0": 0}})
