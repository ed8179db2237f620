"""``check_events``: how far the events have come, and whether a reader's place among them is still there."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import Queue


def _add(mail: Queue, *ids: str) -> None:
    for entry in ids:
        mail.redis.xadd(mail.key("events"), {"event": "x"}, id=entry)


def test_no_events_at_all(mail: Queue) -> None:
    for position in ("", "0-0", "5-1"):
        assert mail.call("check_events", position=position) == ([0, "0-0", 0, 0], {})


@pytest.mark.parametrize(
    ("position", "present"), [("", 1), ("3-2", 1), ("3-1", 1), ("1-0", 1), ("2-0", 0), ("4-0", 0), ("0-0", 0)]
)
def test_a_position(mail: Queue, position: str, present: int) -> None:
    _add(mail, "1-0", "3-1", "3-2")
    assert mail.call("check_events", position=position) == ([present, "3-2", 3, 3], {})


def test_a_position_that_was_trimmed(mail: Queue) -> None:
    _add(mail, "1-0", "2-0", "3-0")
    mail.redis.xtrim(mail.key("events"), 1, approximate=False)
    assert mail.call("check_events", position="2-0") == ([0, "3-0", 1, 3], {})
    assert mail.call("check_events", position="3-0") == ([1, "3-0", 1, 3], {})


def test_a_stream_that_lost_everything_still_knows_how_far_it_came(mail: Queue) -> None:
    _add(mail, "1-0", "2-0")
    mail.redis.xtrim(mail.key("events"), 0, approximate=False)
    for position in ("", "2-0"):
        assert mail.call("check_events", position=position) == ([0, "2-0", 0, 2], {})
