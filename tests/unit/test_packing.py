"""What the engine is given of a job is the same however often its options were seen before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from toromq import _packing
from toromq._packing import packed
from toromq.errors import ConfigurationError

SHARED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"attempts": 0}),
    ({"attempts": 3}, {"attempts": 3}),
    ({"attempts": None, "lifo": True}, {"lifo": True, "attempts": 0}),
    ({"priority": 7, "delay": 1000}, {"delay": 1000, "priority": 7, "attempts": 0}),
    ({"backoff": {"type": "exponential", "delay": 5}}, {"attempts": 0, "backoff": {"type": "exponential", "delay": 5}}),
    ({"remove_on_complete": {"count": 5, "age": None}}, {"attempts": 0, "removeOnComplete": {"count": 5}}),
    ({"remove_on_fail": True, "keep_logs": 4}, {"attempts": 0, "removeOnFail": True, "kl": 4}),
    ({"delay": timedelta(seconds=2)}, {"delay": 2000, "attempts": 0}),
    ({"fail_parent_on_failure": True}, {"attempts": 0, "fpof": True}),
]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    _packing._known.clear()
    yield
    _packing._known.clear()


@pytest.mark.parametrize(("options", "stored"), SHARED)
def test_options_seen_before_give_what_they_gave(options: dict[str, Any], stored: dict[str, Any]) -> None:
    # Pairs, for the order is that of other clients too.
    first = packed("first", b"1", options, {})
    again = packed("again", b"2", dict(options), {})
    assert list(json.loads(first[3]).items()) == list(stored.items())
    assert (again[0], again[1], again[2]) == ("", "again", b"2")
    assert again[3] == first[3]
    assert again[5:] == first[5:]


@pytest.mark.parametrize(("options", "stored"), SHARED)
def test_options_of_the_queue_give_the_same_as_those_of_a_job(options: dict[str, Any], stored: dict[str, Any]) -> None:
    assert packed("n", b"{}", {}, options)[5:] == packed("n", b"{}", options, {})[5:]
    assert json.loads(packed("n", b"{}", {}, options)[3]) == stored


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"priority": 1}, {"priority": True}),
        ({"lifo": True}, {"lifo": 1}),
        ({"attempts": 2}, {"attempts": 2.0}),
        ({"backoff": {"type": "fixed", "delay": 1}}, {"backoff": {"type": "fixed", "delay": True}}),
        ({"remove_on_fail": {"count": 1}}, {"remove_on_fail": {"count": True}}),
    ],
)
def test_what_equals_good_options_and_is_none_is_refused_all_the_same(
    good: dict[str, Any], bad: dict[str, Any]
) -> None:
    packed("n", b"{}", good, {})
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            packed("n", b"{}", bad, {})


def test_options_that_were_changed_after_they_were_seen_are_new_ones() -> None:
    options: dict[str, Any] = {"backoff": {"type": "fixed", "delay": 10}}
    packed("n", b"{}", options, {})
    options["backoff"]["delay"] = 20
    assert json.loads(packed("n", b"{}", options, {})[3])["backoff"]["delay"] == 20


def test_a_moment_of_its_own_wins_over_the_delay_of_the_queue_whenever_it_comes() -> None:
    defaults = {"delay": 5000, "attempts": 2}
    assert packed("n", b"{}", {}, defaults)[5] == 5000
    assert packed("n", b"{}", {"run_at": datetime(1990, 1, 1, tzinfo=UTC)}, defaults)[5] == 0
    assert packed("n", b"{}", {"delay": 7}, defaults)[5] == 7
    assert packed("n", b"{}", {}, defaults)[5] == 5000


def test_what_belongs_to_one_job_is_looked_at_for_each() -> None:
    now = datetime.now(UTC)
    early, late = (packed("n", b"{}", {"run_at": now + timedelta(hours=hours)}, {})[5] for hours in (1, 2))
    assert late - early > 3_000_000
    assert [packed("n", b"{}", {"job_id": name}, {})[0] for name in ("a", "b", "a")] == ["a", "b", "a"]
    assert packed("n", b"{}", {"timestamp": 5}, {})[4] == 5
    packed("n", b"1234", {"size_limit": 4}, {})
    with pytest.raises(ConfigurationError, match=r"^data: 5 bytes of JSON, but size_limit is 4$"):
        packed("n", b"12345", {"size_limit": 4}, {})


def test_children_of_one_job_share_what_became_of_their_options_and_no_others() -> None:
    above = [{"parent": {"id": job_id, "queue": "bull:q"}} for job_id in ("1", "2", "1")]
    jobs = [packed("n", b"{}", {**options}, {}) for options in above]
    assert [job[9][0] for job in jobs] == ["bull:q:1", "bull:q:2", "bull:q:1"]
    assert [json.loads(job[3])["parent"]["id"] for job in jobs] == ["1", "2", "1"]
    failing = packed("n", b"{}", {**above[0], "fail_parent_on_failure": True}, {})
    assert (jobs[0][9][1], failing[9][1]) == (jobs[2][9][1], b'{"id":"1","queueKey":"bull:q","fpof":true}')
    assert jobs[0][9][1] == b'{"id":"1","queueKey":"bull:q"}'


def test_only_so_many_options_are_remembered_and_no_long_ones() -> None:
    for attempts in range(_packing._MOST_KNOWN * 2 + 1):
        assert json.loads(packed("n", b"{}", {"attempts": attempts}, {})[3]) == {"attempts": attempts}
        assert 1 <= len(_packing._known) <= _packing._MOST_KNOWN
    _packing._known.clear()
    packed("n", b"{}", {"backoff": {"type": "x" * 5000}}, {})
    assert not _packing._known
