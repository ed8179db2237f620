"""Asks Node for the golden table: ``python -m tests.cron.make_golden`` (needs Node; see ``table.py``)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from tests.cron.table import DIFFERENCES, FIRES, GOLDEN, REFUSED, Question, iso, ours, read, steps, write
from tests.support.node_peer import NodePeer

# Zones and the moments their clocks change; of years whose rules no release of the database is going to alter.
CHANGES: Final = {
    "Europe/Stockholm": ("2026-03-29T01:00Z", "2026-10-25T01:00Z"),
    "Europe/Madrid": ("2025-03-30T01:00Z", "2025-10-26T01:00Z"),
    "Europe/London": ("2024-03-31T01:00Z", "2024-10-27T01:00Z"),
    "America/New_York": ("2025-03-09T07:00Z", "2025-11-02T06:00Z"),
    "America/St_Johns": ("2025-03-09T05:30Z", "2025-11-02T04:30Z"),
    "America/Havana": ("2025-03-09T05:00Z", "2025-11-02T05:00Z"),
    "America/Sao_Paulo": ("2018-11-04T03:00Z", "2018-02-18T02:00Z"),
    "America/Nuuk": ("2025-03-30T01:00Z", "2025-10-26T01:00Z"),
    "Asia/Beirut": ("2024-03-30T22:00Z", "2024-10-26T21:00Z"),
    "Australia/Lord_Howe": ("2025-10-04T15:30Z", "2025-04-05T15:00Z"),
    "Pacific/Apia": ("2011-09-24T14:00Z", "2011-12-30T10:00Z", "2012-03-31T14:00Z"),
    "Antarctica/Troll": ("2025-03-30T01:00Z", "2025-10-26T01:00Z"),
    "Asia/Pyongyang": ("2018-05-04T15:00Z", "2015-08-14T15:00Z"),
    "Asia/Kolkata": ("2025-03-30T01:00Z",),
    "UTC": ("2025-12-31T23:59Z",),
}
_BEFORE_AND_AFTER: Final = tuple(
    timedelta(minutes=minutes) for minutes in (-25 * 60, -90, -31, -1 / 60, -1 / 120, 0, 20, 75, 150)
)
_AROUNDCHANGES: Final = (
    "0 * * * *",
    "*/20 * * * *",
    "30 */2 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "15 1 * * *",
    "30 2 * * *",
    "0 3 * * *",
    "*/30 2 * * *",
    "0 1-3 * * *",
    "45 2,3 * * *",
    "0 0,4,23 * * *",
    "35 0,2 * * *",
    "10 */1 * * *",
    "*/30 59 1,2 * * *",
    "* * 2 * * *",
    "30 2 * * 0",
    "0 1 L * *",
    "30 2 */2 * 1-5",
    "0 2 * * 0#5",
    "30 1 * * 6L",
    "30 23 * * *",
    "15 22,23 * * *",
    "0 0 1 * *",
    "@daily",
)
_STARTS: Final = (("UTC", "2026-01-01T00:00:00Z"), ("Europe/Stockholm", "2028-02-28T22:59:59Z"))
_DIALECT: Final = tuple(
    """
        *;* *;* * *;* * * *;* * * * *;* * * * * *;0 0 * * *;5 4 * * *;5/20 * * * *;0/5 * * * *;*/7 * * * *;
    */61 * * * *;1-5/9 * * * *;0-59/59 * * * *;59/2 * * * *;1,2,40-45 * * * *;07 08 09 * *;30 * * * * *;
    */15 30 4 * * *;0 0 12 * * 1-5;? ? * * *;0 ? ? * *;0 0 1 1 *;0 0 1 JAN,feb *;0 0 1 Jan-mar *;0 0 1 jan/2 *;
    0 0 1 */5 *;0 0 1 1-12/3 *;0 0 1 6/2 *;0 0 * 2 *;0 0 31 * *;0 0 31 */2 *;0 0 29 2 *;0 0 30 2,4 *;0 0 1,15 * 5;
    0 0 */2 * *;0 0 */10 * 1;0 0 ?/2 * *;0 0 1-31/10 * *;0 0 31/5 * *;0 0 1 * ?;0 0 ? * 5;0 0 ? * ?;0 0 */1 * 5;
    0 0 1-31 * 5;0 0 13 * FRI;0 0 * * sun;0 0 * * SUN-TUE;0 0 * * mon/2;0 0 * * 7;0 0 * * 5-7;0 0 * * 7-7;
    0 0 * * 1-7/2;0 0 * * */3;0 0 * * 0-7;0 0 * * 0-7/7;0 0 * * 2,4,6;0 0 1 1 0-6;0 0 1 * 0-7;0 0 1 * jan;0 0 L * *;
    0 0 L,15 * *;0 0 15,L 2,3 * *;0 0 L 2 *;0 0 L * 5;0 0 31,L 2 *;0 0 L * 5L;0 0 5L * *;0 0 1-3L * *;0 0 * * 5L;
    0 0 * * friL;0 0 * * 0L;0 0 * * 7L;0 0 * * 5L,1L;0 0 * * 5L,2;0 0 * * 8L;0 0 * * 1-5L;0 0 * * 5L/2;0 0 * * 1#1;
    0 0 * * mon#2;0 0 * * 1#5;0 0 * * 7#1;0 0 * * 0#4;0 0 15 * 1#1;0 0 L * 1#5;0 0 * 2 1#5;0 0 ? * 6#3;0 0 * * *#1;
    0 0 15 * *#2;0 0 * * 5L#2;0 0 * * 1#2.0;0 0 * * 1#0x3;0 0 15 * 1#1.5;5* * * * *;1-5-9 * * * *;*/5-10 * * * *;
    0 0 1 0jan *;@yearly;@annually;@monthly;@weekly;@daily;@hourly;@minutely;@secondly;@weekdays;@weekends;
    0 0 31 4,6 *;0 0 30 2 1;0 0 30 2 *#1;0 12 * * MON-FRI;0 9-17 * * 1-5;*/5 9-16 * * 1-5;0 22 * * 1-5;
    23 0-20/2 * * *;0 0,12 1 */2 *;0 4 8-14 * *;0 0 1-7 * 1;15 10 ? * 6L;0 0 0 25 12 ?;0 0 18 ? 11 4#4;
    0 11 1 1,4,7,10 *
    """.replace("\n    ", "").split(";")
)
_HASHED: Final = tuple(
    """
        H * * * *;H H * * *;H H H H H H;H H H H *;H/5 * * * *;H/7 H/5 * * *;H(0-29) * * * *;H(0-29)/10 * * * *;
    H(10-20)/15 * * * *;H/70 * * * *;H(50-70) * * * *;0 H(9-17)/2 * * mon-fri;0 0 H * *;0 0 H(1-28) * *;0 0 H/7 * *;
    0 0 * H *;0 0 1 H/3 *;0 0 1 H(JAN-MAR) *;0 0 * * H;0 0 * * H/2;0 0 * * H(1-5);0 0 * * H#1;0 0 * * HL;
    */H * * * *;5-H * * * *;H(0-29),H(30-59) * * * *;0 0 H,L * *
    """.replace("\n    ", "").split(";")
)
_SEEDS: Final = ("a", "nightly-report", "żółw")
_REFUSED: Final = tuple(
    """
        * * * * * * *;60 * * * *;* 24 * * *;-1 * * * *;*/0 * * * *;1-5/0 * * * *;*/-5 * * * *;5-1 * * * *;
    1/ * * * *;/5 * * * *;1-/5 * * * *;1- * * * *;1,,2 * * * *;,1 * * * *;1, * * * *;1.5 * * * *;a * * * *;
    0x1 * * * *;+1 * * * *;1,1 * * * *;1-5,3 * * * *;*/5,10 * * * *;*,5 * * * *;0 0 ?,1 * *;0 0 0 * *;0 0 32 * *;
    0 0 0-5 * *;0 0 * 0 *;0 0 * 13 *;0 0 1 1,jan *;0 0 1 JANUARY *;0 0 * * 8;0 0 * * 0-8;0 0 * * 0,7;0 0 * * Monday;
    0 0 * * fri-sun;0 0 * * 6-0;0 jan * * *;sun * * * *;0 0 sun * *;0 0 * sun *;0 22-2 * * *;0 0 1 6-1 *;0 0 l * *;
    0 0 L-2 * *;0 0 29-L * *;0 0 LW * *;0 0 15W * *;0 0 L/2 * *;0 0 */L * *;0 0 LL * *;0 0 L,L * *;0 0 L1 * *;
    0 0 100L * *;0 L * * *;L * * * *;0 0 * L *;0 0 * * L;0 0 * * L,1;0 0 * * 5l;0 0 * * L5;0 0 * * 5L,5L;0 0 31 2 *;
    0 0 30 2 *;0 0 31 2 ?;0 0 31 11 *;0 0 * * 1#6;0 0 * * 1#0;0 0 * * 8#1;0 0 * * 1#;0 0 * * #1;0 0 * * 1#1,2;
    0 0 * * 1-2#1;0 0 * * 1/2#1;0 0 * * 1#1#2;0 0 * * 1#a;0 0 1#1 * *;1#1 * * * *;@midnight;@reboot;@HOURLY;@Daily;
    @ hourly; @hourly;@hourly 5;@every 5m;@;h * * * *;H(5) * * * *;H(29-0) * * * *;H() * * * *;H(60-70) * * * *;
    H/0 * * * *;H,H * * * *;1/2/3 * * * *;** * * * *;*5 * * * *;1--5 * * * *;\uff10 0 * * *
    """.replace("\n    ", "").split(";")
)
_REFUSED_ZONES: Final = ("Stockholm", "Europe/Nowhere", "+02:00", "GMT+1", "Z", "-0500", "posix/Europe/Paris", "UTC+")
_ZONES: Final = (
    "utc",
    "europe/stockholm",
    "UTC+2",
    "utc-3:30",
    "UTC+14",
    "Etc/GMT-3",
    "US/Eastern",
    "Asia/Calcutta",
    "EST5EDT",
)


def questions() -> Iterator[Question]:
    """All of them, in the order of the file."""
    for zone, changes in CHANGES.items():
        for change in changes:
            for distance in _BEFORE_AND_AFTER:
                after = iso(datetime.fromisoformat(change) + distance)
                for pattern in _AROUNDCHANGES:
                    yield Question(zone, after, pattern)
    for zone, after in _STARTS:
        for pattern in _DIALECT:
            yield Question(zone, after, pattern.strip())
        for pattern in _HASHED:
            for seed in _SEEDS:
                yield Question(zone, after, pattern.strip(), seed)
    for pattern in _REFUSED:
        yield Question("UTC", "2026-06-15T12:00:00Z", pattern)
    for zone in (*_REFUSED_ZONES, *_ZONES):
        yield Question(zone, "2026-06-15T12:00:00Z", "0 12 * * *")


async def _ask_node(asked: list[Question]) -> list[str]:
    rows: list[Any] = [[one.pattern, one.zone, one.after_ms, FIRES, one.seed] for one in asked]
    peer = await NodePeer.start("redis://127.0.0.1:1")  # Never reached: no command here needs a server
    try:
        found = await peer.command("cron", rows=rows, timeout=900.0)
    finally:
        await peer.close()
    answers = zip(asked, found, strict=True)
    return [REFUSED if isinstance(fires, str) else steps(one.after_ms, fires) for one, fires in answers]


def main() -> None:
    """Write the table, and say which rows the engine answers otherwise that ``differences.tsv`` does not have."""
    asked = list(dict.fromkeys(questions()))
    rows = list(zip(asked, asyncio.run(_ask_node(asked)), strict=True))
    write(GOLDEN, rows)
    known = read(DIFFERENCES) if DIFFERENCES.exists() else {}
    print(f"{len(rows)} rows, {sum(fires == REFUSED for _, fires in rows)} of them refused")
    for question, theirs in rows:
        if (answer := ours(question)) != theirs and known.get(question) != answer:
            print(f"{question}\n\tNode {theirs}\n\tours {answer}")


if __name__ == "__main__":
    main()
