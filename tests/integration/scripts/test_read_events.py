"""``read_events``: the next events, how far they have come, and whether a reader's place still joins them."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import Queue


def _add(mail: Queue, *ids: str) -> None:
    for entry in ids:
        mail.redis.xadd(mail.key("events"), {"event": "x"}, id=entry)


def _entries(*ids: str) -> list[object]:
    return [[entry, ["event", "x"]] for entry in ids]


def test_no_events_at_all(mail: Queue) -> None:
    for position in ("", "0-0", "5-1"):
        assert mail.call("read_events", position=position, count=10) == ([0, "0-0", 0, 0, []], {})


@pytest.mark.parametrize(
    ("position", "joins", "after"),
    [
        ("", 1, ()),
        ("0-0", 0, ("1-0", "3-1", "3-2")),
        ("1-0", 1, ("3-1", "3-2")),
        # Nothing has to have happened at the moment a reader begins.
        ("2-0", 1, ("3-1", "3-2")),
        ("3-1", 1, ("3-2",)),
        ("3-2", 1, ()),
        ("4-0", 1, ()),
    ],
)
def test_a_position(mail: Queue, position: str, joins: int, after: tuple[str, ...]) -> None:
    _add(mail, "1-0", "3-1", "3-2")
    assert mail.call("read_events", position=position, count=10) == ([joins, "3-2", 3, 3, _entries(*after)], {})


def test_no_more_than_asked_for(mail: Queue) -> None:
    _add(mail, "1-0", "2-0", "3-0")
    assert mail.call("read_events", position="1-0", count=1).reply == [1, "3-0", 3, 3, _entries("2-0")]
    assert mail.call("read_events", position="1-0", count=0).reply == [1, "3-0", 3, 3, []]
    assert mail.call("read_events", position="", count=0).reply == [1, "3-0", 3, 3, []]


def test_a_position_that_was_trimmed(mail: Queue) -> None:
    _add(mail, "1-0", "2-0", "3-0")
    mail.redis.xtrim(mail.key("events"), 1, approximate=False)
    assert mail.call("read_events", position="1-0", count=9) == ([0, "3-0", 1, 3, _entries("3-0")], {})
    assert mail.call("read_events", position="3-0", count=9) == ([1, "3-0", 1, 3, []], {})


def test_a_stream_that_lost_everything_still_knows_how_far_it_came(mail: Queue) -> None:
    _add(mail, "1-0", "2-0")
    mail.redis.xtrim(mail.key("events"), 0, approximate=False)
    for position in ("", "2-0"):
        assert mail.call("read_events", position=position, count=9) == ([0, "2-0", 0, 2, []], {})
