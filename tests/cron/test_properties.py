"""What holds for any cron pattern, in any zone, at any time."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cron.patterns import pattern
from toromq import ConfigurationError, _native

# Among them zones whose clocks skipped or repeated a day, half an hour, two hours, or the hour around midnight.
_ZONES = (
    "UTC",
    "Europe/Stockholm",
    "America/New_York",
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Juneau",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Manila",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "UTC-3:30",
)
_PATTERNS = st.integers(0, 2**32).map(lambda seed: pattern(Random(seed)))
_MOMENTS = st.one_of(
    st.integers(-6_000_000_000_000, 7_000_000_000_000),
    st.integers(1_500_000_000, 1_900_000_000).map(lambda seconds: seconds * 1000),
)
_DAY = 86_400_000

_many = settings(max_examples=400, deadline=None, derandomize=True)


def _fires(cron: str, zone: str, after: int, count: int) -> list[tuple[int, int, bool]]:
    try:
        return _native.cron_next(cron, zone, after, count, "seed")
    except ConfigurationError:
        return []


@_many
@given(_PATTERNS, st.sampled_from(_ZONES), _MOMENTS)
def test_times_are_whole_seconds_each_after_the_last(cron: str, zone: str, after: int) -> None:
    last = after
    for fire, _, _ in _fires(cron, zone, after, 20):
        assert fire > last
        assert fire % 1000 == 0
        last = fire


@_many
@given(_PATTERNS, st.sampled_from(_ZONES), _MOMENTS)
def test_what_fires_is_on_the_wall_clock_as_the_pattern_says(cron: str, zone: str, after: int) -> None:
    for fire, offset, stands_in in _fires(cron, zone, after, 5):
        if not stands_in:
            wall = fire + offset * 1000
            assert _fires(cron, "UTC", wall - 1, 1) == [(wall, 0, False)]


@_many
@given(_PATTERNS, st.sampled_from(("UTC", "UTC+9", "UTC-3:30")), _MOMENTS, st.integers(1, _DAY))
def test_no_time_is_passed_over_where_clocks_never_change(cron: str, zone: str, after: int, earlier: int) -> None:
    found = _fires(cron, zone, after, 1)
    for fire, _, _ in found:
        assert _fires(cron, zone, fire - 1, 1) == found
        assert _fires(cron, zone, max(after, fire - earlier), 1) == found
    before = _fires(cron, zone, after - earlier, 1)
    assert before == found or (before and before[0][0] <= after)


@_many
@given(st.text(max_size=40), st.text(max_size=20), _MOMENTS, st.none() | st.text(max_size=5))
def test_any_text_is_answered_or_refused(cron: str, zone: str, after: int, seed: str | None) -> None:
    for wanted in (zone, "UTC"):
        try:
            found = _native.cron_next(cron, wanted, after, 1, seed)
        except ConfigurationError:
            continue
        assert all(fire > after for fire, _, _ in found)


@_many
@given(_PATTERNS, st.sampled_from(_ZONES), st.integers(-(2**63), 2**63 - 1))
def test_moments_beyond_every_calendar_do_no_harm(cron: str, zone: str, after: int) -> None:
    assert all(fire > after for fire, _, _ in _fires(cron, zone, after, 1))
