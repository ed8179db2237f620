"""The engine's cron patterns fire when those of Node's workers do: every row of the golden table."""

from __future__ import annotations

import pytest

from tests.cron.table import DIFFERENCES, GOLDEN, NONE, REFUSED, Question, ours, read

_GOLDEN = read(GOLDEN)
_DIFFERENCES = read(DIFFERENCES)


def test_the_table_is_large_and_has_many_kinds_of_rows() -> None:
    assert len(_GOLDEN) >= 5000
    assert sum(fires == REFUSED for fires in _GOLDEN.values()) >= 100
    assert sum(question.seed is not None for question in _GOLDEN) >= 100
    assert len({question.zone for question in _GOLDEN}) >= 20


@pytest.mark.parametrize("zone", sorted({question.zone for question in _GOLDEN}))
def test_every_row_is_as_in_node_or_listed(zone: str) -> None:
    expected = {question: fires for question, fires in (_GOLDEN | _DIFFERENCES).items() if question.zone == zone}
    assert {question: ours(question) for question in expected} == expected


def test_only_rows_of_the_table_are_listed_as_different() -> None:
    assert _DIFFERENCES.keys() <= _GOLDEN.keys()


@pytest.mark.parametrize("question", list(_DIFFERENCES), ids=lambda one: f"{one.zone}-{one.after}-{one.pattern}")
def test_a_difference_begins_where_node_finds_no_later_time(question: Question) -> None:
    theirs, answer = _GOLDEN[question].split(" "), _DIFFERENCES[question].split(" ")
    at = next(index for index, (one, other) in enumerate(zip(theirs, answer, strict=False)) if one != other)
    assert theirs[at] == NONE or float(theirs[at]) <= 0
    assert all(float(seconds) > 0 for seconds in answer)
