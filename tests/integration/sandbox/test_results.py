"""What becomes of a job by how its function in a child process ended, and what the function can do with its job."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sandbox import processors
from tests.integration.sandbox.conftest import PROCESSORS, Place
from tests.support.eventually import aeventually
from toromq import (
    ConfigurationError,
    JobNotFoundError,
    Queue,
    SandboxError,
    SandboxOptions,
    SerializationError,
    UnrecoverableError,
    Worker,
)

_kinds = pytest.mark.parametrize("kind", ["", "_async"], ids=["def", "async def"])
# For what only the child has to do with.
_one_face = pytest.mark.parametrize("face", ["toromq"])
_VALUES: list[Any] = [
    None, 0, "text", "\x00 \u2028 é \U0001f600", [1, [2.5, None]], {"a": {"b": True}}, 2**60, 1e300, "x" * 1_000_000,
]  # fmt: skip


@_kinds
async def test_data_and_results_are_the_same_on_both_sides(place: Place, kind: str) -> None:
    jobs = await place.queue.add_bulk([("n", value) for value in _VALUES])
    async with place.working(f"given{kind}"):
        for job, value in zip(jobs, _VALUES, strict=True):
            assert (await place.ended(job.id)).returnvalue == value
    completed = [told for told in place.told if told[0] == "completed"]
    assert [told[2] for told in completed] == _VALUES
    assert [told[1].id for told in completed] == [job.id for job in jobs]


@_kinds
async def test_a_job_says_of_itself_what_it_says_in_the_worker(place: Place, kind: str) -> None:
    job = await place.queue.add("name å", {"a": ["é", "\U0001f600"]}, priority=3, attempts=2, timestamp=1_700_000_000)
    # As another client may write it.
    place.redis.hset(place.key(job.id), "progress", json.dumps({"é": "\ud800"}))
    async with place.working(f"fields{kind}", name="worker-1"):
        seen = json.loads((await place.ended(job.id)).returnvalue)
    (active,) = (told[1] for told in place.told if told[0] == "active")
    # By now the worker's own job knows of its end.
    assert seen == {name: getattr(active, name) for name in seen} | {"attempts_made": 0}
    assert (seen["name"], seen["priority"], seen["progress"]) == ("name å", 3, {"é": "\ud800"})
    assert place.redis.hget(place.key(job.id), "pb") == "worker-1"


@_kinds
async def test_a_job_can_report_progress_log_and_change_its_data(place: Place, kind: str) -> None:
    job = await place.queue.add("n", {"step": 1})
    async with place.working(f"reports{kind}"):
        ended = await place.ended(job.id)
    assert ended.returnvalue == [[1, 2], {"done": 50}, {"step": [2, None]}, "active"]
    assert (ended.progress, ended.data) == ({"done": 50}, {"step": [2, None]})
    assert await place.queue.get_job_logs(job.id) == (["one", "två"], 2)
    events = [fields for _, fields in place.redis.xrange(place.key("events"))]
    assert [json.loads(fields["data"]) for fields in events if fields["event"] == "progress"] == [{"done": 50}]
    assert [told[2] for told in place.told if told[0] == "progress"] == [{"done": 50}]


@_kinds
async def test_a_job_can_read_what_became_of_its_children(place: Place, kind: str) -> None:
    job = await place.queue.add("n", delay=3_600_000)
    place.redis.hset(place.key(f"{job.id}:processed"), mapping={"bull:c:1": '{"é": 1}', "bull:c:2": "null"})
    place.redis.hset(place.key(f"{job.id}:failed"), "bull:c:3", "why: é")
    async with place.working(f"children{kind}"):
        await job.promote()
        ended = await place.ended(job.id)
    assert ended.returnvalue == [
        {"bull:c:1": {"é": 1}, "bull:c:2": None},
        {"bull:c:3": "why: é"},
        {"processed": 2, "unprocessed": 0, "ignored": 1, "failed": 0},
    ]


@_one_face
async def test_bad_calls_are_refused_in_the_child_as_they_are_in_the_worker(place: Place) -> None:
    job = await place.queue.add("n")
    async with place.working("refused"):
        ended = await place.ended(job.id)
    assert ended.returnvalue == [
        "SerializationError: progress.a[1]: a value of type set is not JSON; use list(value)",
        "ConfigurationError: row: got 5; allowed is a text",
        "SerializationError: data: NaN is not JSON; use None or a string",
        "ToroError: a job in a child process has no 'obliterate'",
    ]
    assert await place.queue.get_job_logs(job.id) == ([], 0)


@_one_face
async def test_an_error_of_a_call_is_the_same_in_the_child(place: Place, tmp_path: Path) -> None:
    job = await place.queue.add("n", str(tmp_path))
    key = place.key(job.id)
    async with place.working("finds_itself_removed"):
        await place.progress(job.id)
        place.redis.rename(key, f"{key}:away")
        (tmp_path / "removed").touch()
        await aeventually((tmp_path / "asked").exists)
        place.redis.rename(f"{key}:away", key)
        (tmp_path / "restored").touch()
        message, code, job_id = (await place.ended(job.id)).returnvalue
    with pytest.raises(JobNotFoundError) as raised:
        await place.queue.add_job_log("none", "row")
    assert message.replace(job.id, "none") == str(raised.value)
    assert (code, job_id) == (-1, job.id)


@_one_face
async def test_threads_of_a_child_may_all_use_the_job(place: Place) -> None:
    job = await place.queue.add("n")
    async with place.working("threads_log"):
        ended = await place.ended(job.id)
    assert ended.returnvalue == 161
    assert len(set((await place.queue.get_job_logs(job.id)).logs)) == 161


async def test_a_job_that_has_ended_can_do_nothing_to_the_next(place: Place) -> None:
    first, second = await place.queue.add_bulk([("n", 1), ("n", 2)])
    async with place.working("leaves_its_job"):
        assert (await place.ended(first.id)).returnvalue == "nothing"
        assert (await place.ended(second.id)).returnvalue == "job.log: the job has ended"
    assert await place.queue.get_job_logs(first.id) == ([], 0)
    assert await place.queue.get_job_logs(second.id) == ([], 0)


async def test_what_is_printed_goes_where_the_worker_prints_and_disturbs_nothing(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    jobs = await place.queue.add_bulk([("n", n) for n in range(3)])
    async with place.working("prints"):
        for job in jobs:
            # There is nothing to be read.
            assert (await place.ended(job.id)).returnvalue == ""
        # Before the result is known, not when the child ends.
        said = capfd.readouterr()
    for job in jobs:
        assert f"printed by {job.id}\n" in said.out
        assert f"complained by {job.id}\n" in said.err


# --- failures ---------------------------------------------------------------------------------------------------------


_ERRORS = {
    "ValueError": ("why", "ValueError"),
    "bare": ("ValueError", "ValueError"),
    "surrogate": ("a?b", "ValueError"),
    "exit": ("3", "SystemExit"),
    "Odd": ("odd", "Odd"),
    "group": ("several (1 sub-exception)", "ExceptionGroup"),
    "cancelled": ("on its own", "CancelledError"),
}


@_kinds
async def test_whatever_is_raised_fails_the_attempt_with_its_own_traceback(place: Place, kind: str) -> None:
    jobs = dict(zip(await place.queue.add_bulk([("n", {"raise": how}) for how in _ERRORS]), _ERRORS, strict=True))
    async with place.working(f"raises{kind}"):
        ended = {job.id: await place.ended(job.id, "failed") for job in jobs}
    errors = {told[1].id: told[2] for told in place.told if told[0] == "failed"}
    for job, how in jobs.items():
        reason, type_name = _ERRORS[how]
        failed, error = ended[job.id], errors[job.id]
        assert (failed.failed_reason, failed.attempts_made, failed.attempts_started) == (reason, 1, 1)
        (trace,) = failed.stacktrace
        assert type_name in trace
        assert f'File "{PROCESSORS}", line' in trace
        assert "in raises\n" in trace
        # Of the child alone: where the worker noticed is of no interest.
        assert "process.py" not in trace
        assert type(error) is SandboxError
        assert (str(error), error.type) == (reason, type_name)
        assert str(error.__cause__).strip() == trace.strip()


@_one_face
async def test_a_traceback_tells_the_cause(place: Place) -> None:
    job = await place.queue.add("n", {"raise": "ValueError"})
    async with place.working("raises"):
        (trace,) = (await place.ended(job.id, "failed")).stacktrace
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "KeyError: 'cause'\n\nThe above exception was the direct cause" in trace
    assert trace.endswith("ValueError: why\n")


@_kinds
@pytest.mark.parametrize(("kind_of_error", "reason"), [("unrecoverable", "never"), ("hopeless", "no use")])
async def test_an_unrecoverable_error_fails_for_good(place: Place, kind: str, kind_of_error: str, reason: str) -> None:
    job = await place.queue.add("n", {"raise": kind_of_error}, attempts=5)
    async with place.working(f"raises{kind}"):
        failed = await place.ended(job.id, "failed")
    assert (failed.failed_reason, failed.attempts_made) == (reason, 1)
    assert "in raises\n" in failed.stacktrace[0]
    (error,) = (told[2] for told in place.told if told[0] == "failed")
    assert type(error) is UnrecoverableError


async def test_a_result_that_is_no_json_fails_the_job_for_good_and_names_the_path(place: Place) -> None:
    job = await place.queue.add("n", attempts=5)
    async with place.working("odd_result"):
        failed = await place.ended(job.id, "failed")
    assert (failed.attempts_made, failed.failed_reason.split(":")[0]) == (1, "returnvalue.a[1]")
    (error,) = (told[2] for told in place.told if told[0] == "failed")
    assert type(error) is SerializationError


async def test_a_rate_limit_puts_the_job_back(place: Place) -> None:
    job = await place.queue.add("n")
    async with place.working("once"):
        ended = await place.ended(job.id)
    assert (ended.returnvalue, ended.attempts_made) == ("start 2", 1)


@_kinds
@pytest.mark.parametrize("how", ["to delayed", "delayed", "to wait", "waiting"])
async def test_a_job_that_moves_itself_runs_again_and_spends_no_attempt(place: Place, kind: str, how: str) -> None:
    job = await place.queue.add("n", how)
    async with place.working(f"moves{kind}"):
        ended = await place.ended(job.id)
    assert (ended.returnvalue, ended.attempts_made, ended.stacktrace) == ("start 2", 1, [])
    assert not any(told[0] in ("failed", "error") for told in place.told)


@_one_face
async def test_the_time_of_a_delayed_error_arrives(place: Place) -> None:
    job = await place.queue.add("n", "delayed for long")
    async with place.working("moves"):
        delayed = await place.ended(job.id, "delayed")
    assert 3_500_000 < delayed.delay <= 3_600_000
    await job.remove()


@_kinds
async def test_a_parent_waits_for_its_children(place: Place, kind: str) -> None:
    alone = await place.queue.add("n", "none")
    async with place.working(f"moves{kind}"):
        # There is nothing to wait for.
        assert (await place.ended(alone.id)).returnvalue is False
    others: Queue[Any, Any] = Queue("others", **place.options)
    await place.queue.pause()
    job = await place.queue.add("n", f"{others.qualified_name}:child")
    child = await others.add("n", job_id="child", parent={"id": job.id, "queue": place.queue.qualified_name})
    async with place.working(f"parent{kind}"):
        await place.queue.resume()
        await place.ended(job.id, "waiting-children")
        async with Worker("others", lambda job: "done", **place.options):
            ended = await place.ended(job.id)
    assert ended.returnvalue == {f"{others.qualified_name}:{child.id}": "done"}
    assert (ended.attempts_made, ended.attempts_started) == (1, 2)
    assert not any(told[0] in ("failed", "error") for told in place.told)
    await others.close()


# --- types ------------------------------------------------------------------------------------------------------------


async def test_types_of_data_and_result_count_in_the_child_too(place: Place) -> None:
    good, bad, wrong = await place.queue.add_bulk(
        [("n", {"number": 1, "lines": ["a"]}), ("n", {"number": "x"}), ("n", {"number": 13, "lines": []})]
    )
    types = {"data_type": processors.Order, "result_type": processors.Order}
    async with place.working("tests.integration.sandbox.processors:typed", **types):
        ended = await place.ended(good.id)
        failed = [await place.ended(job.id, "failed") for job in (bad, wrong)]
    assert (ended.data, ended.returnvalue) == (
        {"number": 1, "lines": ["changed"]},
        {"number": 2, "lines": ["a", "more"]},
    )
    (result,) = (told[2] for told in place.told if told[0] == "completed")
    assert result == processors.Order(2, ["a", "more"])
    assert [job.failed_reason for job in failed] == [
        f"job {bad.id}: the stored data.lines: missing",
        "returnvalue.number: got str; allowed is int",
    ]


def test_a_type_that_no_child_can_import_is_refused(face: str) -> None:
    @dataclasses.dataclass
    class Local:
        number: int

    module: Any = __import__(face, fromlist=["Worker"])
    for option in ("data_type", "result_type"):
        with pytest.raises(ConfigurationError, match=rf"^{option}: got .*Local'>, which no child process can import"):
            module.Worker("q", "json:loads", **{option: Local})


async def test_attempts_and_backoffs_work_as_in_the_worker(place: Place) -> None:
    seen: list[Any] = []

    def strategy(attempt: int, kind: str, error: SandboxError, job: Any) -> int:
        seen.append((attempt, kind, str(error), error.type, job.id))
        return 0

    job = await place.queue.add("n", {"raise": "ValueError"}, attempts=3, backoff={"type": "own"})
    async with place.working("raises", backoff_strategy=strategy):
        failed = await place.ended(job.id, "failed")
    assert seen == [(n, "own", "why", "ValueError", job.id) for n in (1, 2)]
    assert len(failed.stacktrace) == 3


# --- what runs --------------------------------------------------------------------------------------------------------


@_one_face
@pytest.mark.parametrize(
    ("processor", "result"),
    [
        (str(PROCESSORS), "the function of __processor__"),
        (f"{PROCESSORS}:process", "the function of __processor__"),
        (f"{PROCESSORS}:process_async", "the function of __processor__"),
        ("tests.integration.sandbox.processors:process", "the function of tests.integration.sandbox.processors"),
        (f"{PROCESSORS}:processor", "called"),
        (f"{PROCESSORS}:Processor.static", "static"),
    ],
)
async def test_a_processor_is_found_in_a_file_or_in_a_module(place: Place, processor: str, result: str) -> None:
    job = await place.queue.add("n")
    async with place.working(processor if ":" in processor else f"{processor}:process"):
        assert (await place.ended(job.id)).returnvalue == result


@_one_face
async def test_a_file_is_found_after_the_folder_was_left_and_finds_its_neighbours(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "neighbour.py").write_text("value = 5")
    # It hides no module that others need.
    (tmp_path / "json.py").write_text(
        "import json as other, neighbour\ndef process(job): return [other.__file__ != __file__, neighbour.value]"
    )
    monkeypatch.chdir(tmp_path)
    worker = place.worker("json.py:process")
    monkeypatch.chdir("/")
    job = await place.queue.add("n")
    await place.start(worker)
    assert (await place.ended(job.id)).returnvalue == [True, 5]
    await place.close(worker)


@_one_face
async def test_a_child_imports_nothing_from_the_current_folder_that_its_worker_would_not(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "toromq", "asyncio"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError(__file__)")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    job = await place.queue.add("n", "fine")
    async with place.working("given"):
        assert (await place.ended(job.id)).returnvalue == "fine"


@_one_face
async def test_a_child_imports_what_its_worker_can_import(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_on_the_path.py").write_text("import sys\ndef run(job): return [sys.path, sys.argv]")
    monkeypatch.syspath_prepend(tmp_path)
    job = await place.queue.add("n")
    async with place.working("only_on_the_path:run"):
        assert (await place.ended(job.id)).returnvalue == [sys.path, ["only_on_the_path:run"]]


@_one_face
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "cannot import the file '{}': ModuleNotFoundError: No module named 'no_such_module'"),
        ("def process(:", "cannot import the file '{}': SyntaxError: invalid syntax"),
        ("import sys; sys.exit('enough')", "cannot import the file '{}': SystemExit: enough"),
        ("other = 1", "cannot import '{}:process': module '__processor__' has no attribute 'process'"),
        ("process = 1", "cannot import '{}:process': it is 1, and no function"),
        ("import os; os._exit(4)", "the child process ended with exit code 4 before it began the job"),
        ("import ctypes; ctypes.string_at(0)", "the child process was ended by SIGSEGV before it began the job"),
    ],
)
async def test_what_cannot_be_imported_fails_the_job_and_is_tried_anew(
    place: Place, tmp_path: Path, source: str, reason: str
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    job = await place.queue.add("n")
    async with place.working(f"{file}:process"):
        failed = await place.ended(job.id, "failed")
        assert failed.failed_reason.startswith(reason.format(file))
        assert failed.attempts_made == 1
        # With a child of its own, so that it may have been mended.
        file.write_text("def process(job): return 'mended'")
        job = await place.queue.add("n")
        assert (await place.ended(job.id)).returnvalue == "mended"


def test_what_can_be_seen_to_be_missing_is_refused_at_once(face: str) -> None:
    module: Any = __import__(face, fromlist=["Worker"])
    for processor in ("/no/such/file.py", "no_such_module:run", "json", "json:"):
        with pytest.raises(ConfigurationError, match=r"^processor: got '"):
            module.Worker("q", processor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SandboxOptions(kill_after=-1), r"sandbox\.kill_after: got -1; allowed is a timedelta or milliseconds"),
        (SandboxOptions(max_jobs=0), r"sandbox\.max_jobs: got 0; allowed is a whole number from 1"),
        ({"max_jobs": 3}, r"sandbox: got {'max_jobs': 3}; allowed is SandboxOptions"),
    ],
)
def test_bad_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Worker("q", "json:loads", sandbox=options)


def test_options_for_children_are_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigurationError, match="sandbox: these options are for processors in child processes"):
        Worker("q", print, sandbox=SandboxOptions())
