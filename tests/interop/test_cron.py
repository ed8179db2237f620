"""Random cron patterns at random moments: cron-parser, which Node's workers use, and the engine say the same."""

from __future__ import annotations

from datetime import datetime
from random import Random
from typing import Any

import pytest

from tests.cron.make_golden import CHANGES
from tests.cron.patterns import by_the_hour, pattern
from tests.support.node_peer import NodePeer
from toromq import ConfigurationError, _native

_ROWS = 1500
_FIRES = 2
_ZONES = (
    "UTC",
    "Europe/Stockholm",
    "America/New_York",
    "America/Havana",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
)
# 2024 to 2026, whose rules no release of the database is going to alter.
_FIRST, _LAST = 1_704_067_200, 1_798_761_600


def _row(random: Random) -> list[Any]:
    after = random.randrange(_FIRST, _LAST)
    if random.random() < 0.5:
        after = after // 3600 * 3600 + random.choice((0, -1, 59))
    return [
        pattern(random),
        random.choice(_ZONES),
        after * 1000 + random.choice((0, 0, 1, 999)),
        _FIRES,
        random.choice(("a", "mail", "żółw")),
    ]


def _ours(row: list[Any]) -> list[int] | None:
    try:
        return [fire for fire, _, _ in _native.cron_next(*row)]
    except ConfigurationError:
        return None


def _agree(theirs: list[int | None] | str, answer: list[int] | None, after: int) -> bool:
    if isinstance(theirs, str) or answer is None:
        return isinstance(theirs, str) and answer is None
    for index, fire in enumerate(theirs):
        if fire is None or fire <= after:
            # It gave up, or went back: there the engine searches on.
            return all(later > after for later in answer[index:])
        if index >= len(answer) or answer[index] != fire:
            return False
        after = fire
    return True


async def _wrong(peer: NodePeer, rows: list[Any], answers: list[list[int] | None]) -> list[Any]:
    theirs = await peer.command("cron", rows=rows, timeout=90.0)
    compared = zip(rows, theirs, answers, strict=True)
    return [(row, node, answer) for row, node, answer in compared if not _agree(node, answer, row[2])]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_patterns_fire_when_node_says(peer: NodePeer, seed: int) -> None:
    random = Random(seed)
    rows = [_row(random) for _ in range(_ROWS)]
    answers = [_ours(row) for row in rows]
    assert await _wrong(peer, rows, answers) == []
    # Enough of both kinds, so that agreeing says something.
    refused = sum(answer is None for answer in answers)
    assert _ROWS // 10 < refused < _ROWS // 2
    assert sum(bool(answer) for answer in answers) > _ROWS // 2


@pytest.mark.parametrize("seed", [1, 2])
async def test_patterns_fire_when_node_says_while_clocks_change(peer: NodePeer, seed: int) -> None:
    random = Random(seed)
    rows: list[Any] = []
    for _ in range(_ROWS):
        zone, changes = random.choice(list(CHANGES.items()))
        change = int(datetime.fromisoformat(random.choice(changes)).timestamp())
        after = change + random.randint(-3 * 3600, 3 * 3600)
        if random.random() < 0.5:
            after = after // 60 * 60 + random.choice((0, -1))
        rows.append([by_the_hour(random), zone, after * 1000 + random.choice((0, 0, 500)), 3, None])
    answers = [_ours(row) for row in rows]
    assert all(answers)
    assert await _wrong(peer, rows, answers) == []
