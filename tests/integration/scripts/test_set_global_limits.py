"""``set_global_limits``: what is stored of the queue's own limits, and whom a change wakes."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import LONG_MS, Expiring, NewJob, Queue

RATE = [("max", 5), ("duration", 900)]


def test_limits_are_set_and_changed_and_removed(mail: Queue) -> None:
    assert mail.call("set_global_limits", RATE) == (1, {"meta": {"max": "5", "duration": "900"}})
    assert mail.call("set_global_limits", [("concurrency", 3)]) == (1, {"meta": {"concurrency": "3"}})
    assert mail.call("set_global_limits", [("max", 6), ("duration", 900)]) == (1, {"meta": {"max": "6"}})
    assert mail.call("set_global_limits", [("max", 6), ("duration", 900)]) == (1, {})
    assert mail.call("set_global_limits", [("max", ""), ("duration", "")]) == (
        1,
        {"meta": {"max": None, "duration": None}},
    )
    # The last field takes the key with it.
    assert mail.call("set_global_limits", [("concurrency", "")]) == (1, {"meta": None})
    assert mail.call("set_global_limits", [("concurrency", "")]) == (1, {})


@pytest.mark.parametrize(
    ("jobs", "settings", "change", "wakes"),
    [
        pytest.param([NewJob()], {"concurrency": "1"}, [("concurrency", 2)], True, id="raised"),
        pytest.param([NewJob(priority=1)], {"concurrency": "1"}, [("concurrency", 2)], True, id="raised, prioritized"),
        pytest.param([NewJob()], {"concurrency": "1"}, [("concurrency", "")], True, id="removed"),
        pytest.param([NewJob()], {"concurrency": "3"}, [("concurrency", 1)], False, id="lowered to what is active"),
        pytest.param([NewJob()], {"concurrency": "1"}, [("max", ""), ("duration", "")], False, id="still at it"),
        pytest.param([NewJob()], {"max": "1", "duration": "900"}, [("max", ""), ("duration", "")], True, id="no rate"),
        pytest.param([NewJob()], {"max": "1", "duration": "900"}, RATE, True, id="another rate"),
        pytest.param([], {"concurrency": "1"}, [("concurrency", "")], False, id="nothing waits"),
        pytest.param([NewJob(delay=500)], {"concurrency": "1"}, [("concurrency", "")], False, id="nothing waits yet"),
        pytest.param([NewJob()], {"concurrency": "1", "paused": "1"}, [("concurrency", "")], False, id="paused"),
    ],
)
def test_a_change_wakes_a_worker_for_what_may_start(
    mail: Queue, jobs: list[NewJob], settings: dict[str, str], change: list[tuple[str, int | str]], wakes: bool
) -> None:
    mail.activate(NewJob())
    mail.put("meta", settings)
    if jobs:
        mail.add(*jobs)
    mail.redis.delete(mail.key("marker"))
    changed = mail.call("set_global_limits", change).changed
    assert changed.get("marker") == ({"0": 0} if wakes else None)
    assert changed.keys() <= {"marker", "meta"}


@pytest.mark.parametrize("change", [RATE, [("max", ""), ("duration", "")], [("concurrency", 2)]], ids=str)
def test_who_sleeps_until_a_window_ends_is_told_of_any_change(
    mail: Queue, change: list[tuple[str, int | str]]
) -> None:
    mail.put("meta", {"max": "1", "duration": "900"})
    assert "limiter:wake" not in mail.call("set_global_limits", change).changed
    mail.redis.set(mail.key("limiter"), 1, px=LONG_MS)
    assert mail.call("set_global_limits", change).changed["limiter:wake"] == Expiring([{"limit": "changed"}])
