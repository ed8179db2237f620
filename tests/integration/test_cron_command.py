"""``toromq cron`` as a person types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from toromq import cli

Answer = tuple[int, list[str], str]


@pytest.fixture
def cron(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs the command here; gives its exit code, its lines, and what it complained of."""

    def run(*arguments: str) -> Answer:
        try:
            code = cli.main(["cron", *arguments])
        except SystemExit as ended:
            code = int(str(ended.code))
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


def test_the_next_times_are_told_on_the_wall_clock_and_in_utc() -> None:
    words = [sys.executable, "-m", "toromq", "cron", "0 15 3 * * *", "--tz", "Europe/Madrid", "--start", "2026-01-30"]
    done = subprocess.run([*words, "--count", "2"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        '"0 15 3 * * *" in Europe/Madrid, after Fri 2026-01-30 00:00:00+01:00:',
        "  Fri 2026-01-30 03:15:00+01:00   2026-01-30T02:15:00Z",
        "  Sat 2026-01-31 03:15:00+01:00   2026-01-31T02:15:00Z",
    ]


def test_the_zone_is_utc_and_the_start_now_unless_told(cron: Callable[..., Answer]) -> None:
    code, lines, _ = cron("* * * * *")
    assert code == 0
    assert lines[0].startswith('"* * * * *" in UTC, after ')
    assert len(lines) == 6
    assert all("+00:00   2" in line and line.endswith(":00Z") for line in lines[1:])


def test_a_time_that_the_clocks_skip_is_told_to_be_moved(cron: Callable[..., Answer]) -> None:
    code, lines, _ = cron("30 2 * * *", "--tz", "Europe/Stockholm", "--start", "2026-03-28T12:00", "--count", "2")
    assert code == 0
    assert lines[1:] == [
        "  (the clocks are put forward by 1 h)",
        "  Sun 2026-03-29 03:30:00+02:00   2026-03-29T01:30:00Z   in place of a time that the clocks skip that day",
        "  Mon 2026-03-30 02:30:00+02:00   2026-03-30T00:30:00Z",
    ]


def test_clocks_put_back_are_told_of(cron: Callable[..., Answer]) -> None:
    code, lines, _ = cron("0 * * * *", "--tz", "Australia/Lord_Howe", "--start", "2026-04-05T00:30", "--count", "3")
    assert code == 0
    assert lines[1:] == [
        "  Sun 2026-04-05 01:00:00+11:00   2026-04-04T14:00:00Z",
        "  (the clocks are put back by 30 min)",
        "  Sun 2026-04-05 02:00:00+10:30   2026-04-04T15:30:00Z",
        "  Sun 2026-04-05 03:00:00+10:30   2026-04-04T16:30:00Z",
    ]


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("2026-10-25T02:30", "2026-10-25T02:00:00Z"),  # Comes twice: the second is meant
        ("2026-10-25T02:30+02:00", "2026-10-25T01:00:00Z"),
        ("2026-10-25T00:30Z", "2026-10-25T01:00:00Z"),
    ],
)
def test_a_start_without_an_offset_is_on_the_wall_clock(cron: Callable[..., Answer], start: str, first: str) -> None:
    code, lines, _ = cron("0 * * * *", "--tz", "Europe/Stockholm", "--start", start, "--count", "1")
    assert code == 0
    assert lines[-1].endswith(first)


def test_a_seed_decides_what_h_is_and_without_one_that_is_said(cron: Callable[..., Answer]) -> None:
    seeded = [cron("H 4 * * *", "--start", "2026-01-01", "--count", "1", "--seed", seed)[1] for seed in "aab"]
    assert seeded[0] == seeded[1]
    assert seeded[0][1].endswith("2026-01-01T04:18:00Z")
    assert seeded[2][1].endswith("2026-01-01T04:20:00Z")
    assert "--seed" in cron("H 4 * * *")[1][-1]


def test_what_never_fires_is_an_error_and_the_last_time_is_told(cron: Callable[..., Answer]) -> None:
    code, lines, complaint = cron("0 0 31 4,6 *")
    assert (code, lines) == (1, [])
    assert complaint == 'toromq: cron pattern "0 0 31 4,6 *": it never fires\n'

    code, lines, _ = cron("0 0 1 1 *", "--start", "9998-06-01", "--count", "3")
    assert code == 0
    assert lines[1:] == ["  Fri 9999-01-01 00:00:00+00:00   9999-01-01T00:00:00Z", "  and none after that"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["* 25 * * *"], 1, 'the hour field is "25": 25 is out of range; allowed are numbers from 0 to 23'),
        (["* * * * *", "--tz", "Madrid"], 1, 'time zone "Madrid" is not known'),
        (["* * * * *", "--count", "0"], 2, "got '0'; allowed are 1 to 1000"),
        (["* * * * *", "--start", "0001-01-01", "--tz", "Asia/Tokyo"], 1, "start: got 0001-01-01 00:00:00; allowed"),
        (["* * * * *", "--start", "9999-12-31"], 1, "start: got 9999-12-31 00:00:00; allowed"),
        (["* * * * *", "--start", "soon"], 2, "got 'soon'; allowed is ISO 8601"),
        ([], 2, "PATTERN"),
    ],
)
def test_a_wrong_word_is_named(cron: Callable[..., Answer], arguments: list[str], code: int, complaint: str) -> None:
    found, lines, said = cron(*arguments)
    assert (found, lines) == (code, [])
    assert complaint in said
