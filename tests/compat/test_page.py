"""Every line of docs/migrating-from-bullmq.md: the programs run, and both columns of each row do the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import toromq
import toromq.compat.bullmq as bullmq
from tests.support.keyspace import keyspace

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

_PAGE = (Path(__file__).parents[2] / "docs" / "migrating-from-bullmq.md").read_text()
_URL = "redis://localhost:6379"


class Row(NamedTuple):
    """A row of a table: the same in both styles, and in what the answers differ."""

    theirs: str
    ours: str
    differs: str


def _sections() -> Iterator[tuple[str, str]]:
    for section in re.split(r"^## ", _PAGE, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        yield title, text


def _rows(title: str) -> list[Any]:
    text = dict(_sections())[title]
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and cells[0] != "`bullmq`":
            theirs, ours = (cell.strip("`") for cell in cells[:2])
            rows.append(pytest.param(Row(theirs, ours, cells[2] if len(cells) > 2 else ""), id=theirs))
    return rows


def _programs() -> list[Any]:
    found = []
    for title, text in _sections():
        for n, code in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)):
            found.append(pytest.param(code, id=f"{title}-{n}"))
    return found


@pytest.mark.parametrize("code", _programs())
def test_a_program_runs(code: str, redisbox: RedisBox, redis: redis_py.Redis) -> None:
    redis.flushdb()
    alias = "import sys, toromq.compat.bullmq\nsys.modules['bullmq'] = toromq.compat.bullmq\n"
    program = alias + code.replace(_URL, f"redis://127.0.0.1:{redisbox.port}")
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert ("asyncio.run" in code) == bool(told.stdout)
    redis.flushdb()


def test_both_programs_of_a_pair_say_the_same(redisbox: RedisBox, redis: redis_py.Redis) -> None:
    programs = [param.values[0] for param in _programs() if "asyncio.run" in param.values[0]]
    said = []
    for code in programs:
        redis.flushdb()
        program = "import sys, toromq.compat.bullmq\nsys.modules['bullmq'] = toromq.compat.bullmq\n" + code
        program = program.replace(_URL, f"redis://127.0.0.1:{redisbox.port}")
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
        said.append(told.stdout)
    redis.flushdb()
    assert said == ["1 {'sent': 'a@example.com'}\n"] * 2 + ["enough\n"] * 2 + ["a order\na 2\n"] * 2


_OURS = {name: getattr(toromq, name) for name in toromq.__all__}


def _options(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    return eval(row.theirs), eval(f"dict({row.ours})", dict(_OURS))


@pytest.mark.parametrize("row", _rows("Options of a job"))
async def test_an_option_of_a_job(row: Row, redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> None:
    theirs, ours = _options(row)
    now = {} if "timestamp" in theirs else {"timestamp": 1_600_000_000_000}
    one = bullmq.Queue("q", {"connection": redisbox.url, "prefix": f"{prefix}:theirs"})
    other = toromq.Queue("q", connection=redisbox.url, prefix=f"{prefix}:ours")
    job_id = (await one.add("n", {}, {**theirs, **now})).id
    assert (await other.add("n", {}, **{**ours, **now})).id == job_id
    stored = redis.hgetall(f"{prefix}:ours:q:{job_id}")
    assert redis.hgetall(f"{prefix}:theirs:q:{job_id}") == stored
    assert stored["opts"] != '{"attempts":0}'
    await one.close()
    await other.close()


@pytest.mark.parametrize("row", _rows("Options of a queue"))
def test_an_option_of_a_queue(row: Row) -> None:
    theirs, ours = _options(row)
    one, other = bullmq.Queue("q", theirs).toromq, toromq.Queue("q", **ours)
    assert (one.prefix, one.default_job_options) == (other.prefix, other.default_job_options)
    assert one._connection._options == other._connection._options


@pytest.mark.parametrize("row", _rows("Options of a worker"))
def test_an_option_of_a_worker(row: Row) -> None:
    theirs, ours = _options(row)
    one, other = bullmq.Worker("q", None, theirs).toromq, toromq.Worker("q", **ours)
    assert one._options == other._options
    assert (one._prefix, one.name) == (other._prefix, other.name)
    assert (one._options, one._prefix) != (toromq.Worker("q")._options, "bull")


class Side:
    """A queue with a job in each state, seen through one of the styles."""

    def __init__(self, module: Any, queue: Any, worker: Any, prefix: str) -> None:
        self.queue, self.worker, self.prefix = queue, worker, prefix
        self.names: dict[str, Any] = {**vars(module), "queue": queue, "worker": worker}

    async def fill(self) -> None:
        """Jobs, added and finished through the real API."""
        queue = getattr(self.queue, "toromq", self.queue)
        worker = getattr(self.worker, "toromq", self.worker)
        for name in ("done", "failed", "active"):
            await queue.add("n", {"n": 1}, job_id=f"{name}-1")
        done = await worker.get_next_job("mine")
        await done.move_to_completed({"ok": 1}, "mine", fetch_next=False)
        failed = await worker.get_next_job("mine")
        await failed.move_to_failed(toromq.UnrecoverableError("why"), "mine", fetch_next=False)
        get = getattr(self.worker, "getNextJob", None) or self.worker.get_next_job
        self.names["active"] = await get("mine")
        await queue.add("n", {"n": 1}, job_id="a")
        await queue.add("n", {"n": 1}, job_id="delayed-1", delay=60_000)
        await queue.add("n", {"n": 1}, job_id="prioritized-1", priority=2)
        find = getattr(self.queue, "getJob", None) or self.queue.get_job
        for name, job_id in (("job", "a"), ("delayed", "delayed-1"), ("failed", "failed-1"), ("done", "done-1")):
            self.names[name] = await find(job_id)

    async def run(self, code: str) -> Any:
        """What a cell of a table gives."""
        made: dict[str, Any] = {}
        exec(f"async def cell():\n    return {code}", self.names, made)
        return self._plain(await made["cell"]())

    def _plain(self, value: Any) -> Any:
        if isinstance(value, toromq.Job | bullmq.Job):
            return ("job", value.id, value.name, value.data)
        if isinstance(value, list | tuple):
            return [self._plain(one) for one in value]
        return value.replace(self.prefix, "") if isinstance(value, str) else value

    async def close(self) -> None:
        """Both."""
        await self.worker.close()
        await self.queue.close()


def _stored(client: redis_py.Redis, side: Side) -> dict[str, Any]:
    """Everything that is in Redis, but for what the clock says and who wrote it."""
    found = {key.removeprefix(side.prefix): value for key, value in keyspace(client, side.prefix).items()}
    text = re.sub(r"\d{13,}(-\d+)?", "TIME", repr(sorted(found.items())))
    return {"keys": re.sub(r"'stacktrace': '.*?(?<!\\)'", "", text).replace(side.prefix, "")}


@pytest.mark.parametrize("row", [*_rows("Methods of a queue"), *_rows("A job"), *_rows("A worker")])
async def test_a_method(row: Row, redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> None:
    opts = {"connection": redisbox.url, "prefix": f"{prefix}:theirs"}
    one = Side(bullmq, bullmq.Queue("queue", opts), bullmq.Worker("queue", None, opts), opts["prefix"])
    kwargs = {"connection": redisbox.url, "prefix": f"{prefix}:ours"}
    other = Side(toromq, toromq.Queue("queue", **kwargs), toromq.Worker("queue", **kwargs), kwargs["prefix"])
    answers = []
    for side, code in ((one, row.theirs), (other, row.ours)):
        await side.fill()
        answers.append(await side.run(code))
        await side.close()
    if not row.differs:
        assert answers[0] == answers[1]
    assert _stored(redis, one) == _stored(redis, other)


def test_every_table_was_found() -> None:
    counts = {title: len(_rows(title)) for title, text in _sections() if "| --- |" in text}
    assert min(counts.values()) >= 4
    assert sum(counts.values()) == _PAGE.count("\n| `") - _PAGE.count("\n| `bullmq` |")
    assert counts.keys() == {
        "Options of a job", "Options of a queue", "Options of a worker", "Methods of a queue", "A job", "A worker",
    }  # fmt: skip
