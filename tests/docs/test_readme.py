"""Every code sample of README.md is a part of a program under ``examples/readme``, and those run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import toromq.sync
from tests.docs.feature_table import ROOT
from tests.support.redisbox import RedisBox

_BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
_PROGRAMS = ROOT / "examples" / "readme"


@pytest.fixture(scope="module")
def box() -> Iterator[RedisBox]:
    """A server of its own: the samples have no prefix."""
    with RedisBox() as started:
        yield started


def _run(name: str, url: str, folder: Path) -> str:
    told = subprocess.run(
        [sys.executable, "-W", "error", _PROGRAMS / name],
        cwd=folder, env={**os.environ, "TOROMQ_URL": url, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, "")
    return told.stdout


@pytest.mark.parametrize("code", _BLOCKS, ids=lambda code: code.strip().splitlines()[0])
def test_a_sample_is_a_part_of_a_program(code: str) -> None:
    programs = [path.read_text(encoding="utf-8") for path in sorted(_PROGRAMS.glob("*.py"))]
    assert any(part in program for program in programs for part in (code, textwrap.indent(code, "    ")))


def test_the_first_sample_brings_its_own_server(box: RedisBox, tmp_path: Path) -> None:
    assert _run("first.py", "redis://127.0.0.1:1", tmp_path) == "1 {'sent_to': 'user@example.com'}\n"
    assert (tmp_path / ".toromq").is_dir()


def test_the_tour_runs(box: RedisBox, tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "build.py").write_text("def run(job): ...\n")
    assert _run("tour.py", box.url, tmp_path).splitlines()[0] == "{'sent': True}"


def test_a_worker_runs_until_it_is_told_to_end(box: RedisBox, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", _PROGRAMS / "resize.py"],
        cwd=tmp_path, env={**os.environ, "TOROMQ_URL": box.url}, stderr=subprocess.PIPE,
    ) as program:  # fmt: skip
        try:
            with toromq.sync.Queue("images", connection=box.url) as queue:
                job = queue.add("sample", {"path": "a.png"})
                job.wait_until_finished(timeout=timedelta(seconds=30))
            program.send_signal(signal.SIGINT)
            assert program.communicate(timeout=30) == (None, b"")
            assert program.returncode == 0
        finally:
            program.kill()


def test_samples_were_found() -> None:
    assert len(_BLOCKS) >= 5
