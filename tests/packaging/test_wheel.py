"""The wheel that users install: built, put into an empty virtual environment, and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.redisbox import RedisBox

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, sys, threading
import toromq
from toromq import sync

url, prefix = sys.argv[1:]
assert "site-packages" in toromq.__file__, toromq.__file__

def double(job: sync.Job) -> int:
    return job.data * 2

async def half(job: toromq.Job) -> float:
    await job.update_progress(50)
    return job.data / 2

async def main() -> None:
    results = {}
    done = asyncio.Event()
    async with toromq.Queue("halves", connection=url, prefix=prefix) as queue:
        worker = toromq.Worker("halves", half, connection=url, prefix=prefix, concurrency=5)
        worker.on("completed", lambda job, result: results.update({job.data: result}))
        worker.on("drained", done.set)
        await queue.add_bulk([("half", n) for n in range(100)])
        async with worker:
            await done.wait()
        assert await queue.get_job_counts("completed", "failed") == {"completed": 100, "failed": 0}
    assert results == {n: n / 2 for n in range(100)}

asyncio.run(main())

with sync.Queue("doubles", connection=url, prefix=prefix) as queue:
    done = threading.Event()
    worker = sync.Worker("doubles", double, connection=url, prefix=prefix)
    worker.on("completed", lambda job, result: done.set() if result == 42 else None)
    queue.add("double", 21)
    with worker:
        assert done.wait(20)

print("works", toromq.__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    maturin = Path(sys.executable).with_name("maturin")
    command = [maturin, "build", "--release", "--quiet", "--out", out]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.timeout(600)
def test_one_wheel_serves_every_python_from_3_11_and_brings_types(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    assert {"toromq/py.typed", "toromq/_native.pyi", "toromq/_native.abi3.so"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "bench", "examples")) or "__pycache__" in name]


@pytest.mark.timeout(600)
def test_the_wheel_works_in_an_empty_environment(
    wheel: Path, tmp_path: Path, redisbox: RedisBox, prefix: str
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TOROMQ", "VIRTUAL"))}

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", wheel)
    assert run(python, "-c", PROGRAM, redisbox.url, prefix).startswith("works")
    assert "toromq" in run(python.with_name("toromq"), "--version")
