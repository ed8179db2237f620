"""``get_metrics``: a per-minute series and what it is computed from."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import COMMANDS, NOW, Queue


def series(mail: Queue, start: int = 0, last: int = -1, target: str = "completed") -> list[object]:
    source, keys, args = COMMANDS["get_metrics"]
    assert (list(keys), list(args)) == (["metrics", "points"], ["start", "last"])
    metrics = mail.key(f"metrics:{target}")
    before = mail.snapshot()
    reply: list[object] = mail.redis.eval(source, 2, metrics, f"{metrics}:data", start, last)
    assert mail.snapshot() == before
    return reply


@pytest.fixture
def _points(mail: Queue) -> None:
    mail.put("metrics:completed", {"count": 9, "prevTS": NOW, "prevCount": 8})
    mail.redis.rpush(mail.key("metrics:completed:data"), 0, 0, 5, 1, 2)


def test_without_a_count_there_is_nothing(mail: Queue) -> None:
    assert series(mail) == [None, None, None, 0, []]


@pytest.mark.usefixtures("_points")
@pytest.mark.parametrize(
    ("start", "last", "points"),
    [
        (0, -1, ["0", "0", "5", "1", "2"]),
        (0, 0, ["0"]),
        (1, 2, ["0", "5"]),
        (-2, -1, ["1", "2"]),
        (4, 99, ["2"]),
        (3, 1, []),
        (7, 9, []),
    ],
)
def test_points_are_told_by_place(mail: Queue, start: int, last: int, points: list[str]) -> None:
    assert series(mail, start, last) == ["9", str(NOW), "8", 5, points]


@pytest.mark.usefixtures("_points")
def test_the_series_are_apart(mail: Queue) -> None:
    assert series(mail, target="failed") == [None, None, None, 0, []]
