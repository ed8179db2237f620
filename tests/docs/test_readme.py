"""Every code sample of README.md runs: programs as they are, pieces of them among the names they take for granted."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import toromq
import toromq.sync
from tests.docs.feature_table import ROOT
from tests.support.redisbox import RedisBox

if TYPE_CHECKING:
    import redis as redis_py

_BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
_PROGRAMS = [code for code in _BLOCKS if re.search(r"^asyncio\.run\(", code, re.M)]
_SERVERS = [code for code in _BLOCKS if re.search(r"^toromq\.run\(", code, re.M)]
_PIECES = [code for code in _BLOCKS if code not in _PROGRAMS and code not in _SERVERS]


@dataclass
class Order:
    """What a piece calls so."""

    number: int


@pytest.fixture(scope="module")
def box() -> Iterator[RedisBox]:
    """A server of its own: the samples have no prefix."""
    with RedisBox() as started:
        yield started


@pytest.fixture(autouse=True)
def _clean(box: RedisBox) -> None:
    client: redis_py.Redis = box.client()
    client.flushdb()
    client.close()


def _first_line(code: str) -> str:
    return code.strip().splitlines()[0]


def _environment(box: RedisBox) -> dict[str, str]:
    return {**os.environ, "TOROMQ_URL": box.url, "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("code", _PROGRAMS, ids=_first_line)
def test_a_program_runs(box: RedisBox, tmp_path: Path, code: str) -> None:
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace("embedded:.toromq", box.url)],
        cwd=tmp_path, env=_environment(box), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout


@pytest.mark.parametrize("code", _SERVERS, ids=_first_line)
def test_a_program_with_workers_runs_until_it_is_told_to_end(box: RedisBox, tmp_path: Path, code: str) -> None:
    (queue_name,) = set(re.findall(r"Worker\(\"(\w+)\"", code))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=_environment(box), stderr=subprocess.PIPE
    ) as program:
        try:
            with toromq.sync.Queue(queue_name, connection=box.url) as queue:
                job = queue.add("sample", {"path": "a.png"})
                job.wait_until_finished(timeout=timedelta(seconds=30))
            program.send_signal(signal.SIGINT)
            assert program.communicate(timeout=30) == (None, b"")
            assert program.returncode == 0
        finally:
            program.kill()


@pytest.mark.parametrize("code", _PIECES, ids=_first_line)
async def test_a_piece_runs(box: RedisBox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    monkeypatch.setenv("TOROMQ_URL", box.url)
    # The processor in a file of its own.
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "build.py").write_text("def run(job): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    is_async = "await " in code
    face: Any = toromq if is_async else toromq.sync
    names: dict[str, Any] = {name: getattr(toromq, name) for name in toromq.__all__}
    names |= {name: getattr(face, name) for name in toromq.sync.__all__}
    names |= {"timedelta": timedelta, "datetime": datetime, "UTC": UTC, "asyncio": asyncio, "Order": Order}

    async def send(job: Any) -> dict[str, bool]:
        return {"sent": True}

    async with toromq.Queue("emails") as emails, toromq.Worker("emails", send):
        done = await emails.add("welcome", {})
        await done.wait_until_finished(timeout=30_000)
        await emails.add("later", {}, delay=3_600_000)
        queue = face.Queue("emails")
        names |= {"url": box.url, "queue": queue, "job": done, "job_id": done.id}
        compiled = compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if inspect.CO_COROUTINE & compiled.co_flags:
            await eval(compiled, names)
        else:
            await asyncio.to_thread(eval, compiled, names)
        closed = queue.close()
        if is_async:
            await closed


def test_samples_were_found() -> None:
    assert len(_PROGRAMS) >= 1
    assert len(_PIECES) >= 2
