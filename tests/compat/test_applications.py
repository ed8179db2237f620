"""The same application over bullmq 3.4.4 and over ours: it must see the same."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.invariants import check_invariants

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

_HERE = Path(__file__).parent
_RUNNER = _HERE / "run_application.py"


async def _run(side: str, file: Path, redisbox: RedisBox, prefix: str) -> list[Any]:
    warnings = "ignore" if side == "theirs" else "error"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", warnings, str(_RUNNER), side, str(file), "127.0.0.1", str(redisbox.port), prefix,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
        pytest.fail(f"{side} did not end; it said:\n{output.decode()}\n{errors.decode()}")
    assert process.returncode == 0, f"{side}:\n{output.decode()[-2000:]}\n{errors.decode()[-4000:]}"
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize(
    "application",
    ["adding", "by_hand", "cancelling", "controlling", "flowing", "listening", "living", "scheduling", "working"],
)
async def test_an_application_sees_the_same(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str, application: str
) -> None:
    file = _HERE / "applications" / f"{application}.py"
    sides = [_run(side, file, redisbox, f"{prefix}:{side}") for side in ("theirs", "ours")]
    # Both to their end: one that is left running would be missed by a later test.
    said = await asyncio.gather(*sides, return_exceptions=True)
    for failure in said:
        if isinstance(failure, BaseException):
            raise failure
    theirs, ours = said
    assert theirs, "it said nothing"
    assert ours == theirs
    assert check_invariants(redis, f"{prefix}:ours") == []


def test_every_application_is_run() -> None:
    mark = next(mark for mark in test_an_application_sees_the_same.pytestmark if mark.name == "parametrize")
    assert sorted(mark.args[1]) == sorted(file.stem for file in (_HERE / "applications").glob("*.py"))
