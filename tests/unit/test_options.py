"""Every bad argument is refused by its name, with what is allowed, before anything is sent. No Redis is needed."""

from __future__ import annotations

import inspect
import math
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

import toromq
from toromq import Backoff, Connection, Deduplication, Metrics, MetricsTime, RateLimit, sync
from toromq.errors import ConfigurationError, SerializationError
from toromq.options import JobOptions, SandboxOptions

DURATION = "allowed is a timedelta or milliseconds, 0 or more"
WHOLE = "allowed is a whole number from 0 to"
KEEP = "allowed is a bool, a number of jobs, or age, count and limit"
FACES = pytest.mark.parametrize("face", [toromq, sync], ids=["async", "sync"])
cycle: list[Any] = []
cycle.append(cycle)


class Silent:
    """A listener that nobody may connect to."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        # What is wrongly accepted waits for an answer that never comes: not for long.
        self.connection = Connection(
            host="127.0.0.1", port=listener.getsockname()[1], connect_timeout=200, command_timeout=200
        )

    def assert_untouched(self) -> None:
        with pytest.raises(BlockingIOError):
            self._listener.accept()

    async def refuses(self, kind: type[Exception] | tuple[type[Exception], ...], action: Callable[[], Any]) -> str:
        """The message that an action gets, of either face; nothing was tried before."""
        with pytest.raises(kind) as caught:
            await done(action())
        self.assert_untouched()
        return str(caught.value)


def later(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], Any]:
    """A call to make later."""
    return lambda: function(*arguments, **options)


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        yield Silent(listener)


def queues(silent: Silent) -> list[Any]:
    return [face.Queue("q", connection=silent.connection) for face in (toromq, sync)]


def processor(job: Any) -> None:
    """Does nothing."""


# --- options of a job -----------------------------------------------------------------------------------------------

NAIVE = datetime(2035, 1, 1)
PARENT = {"id": "7", "queue": "bull:mail"}
BAD_JOB_OPTIONS: list[Any] = [
    ({"delay": -1}, f"delay: got -1; {DURATION}"),
    ({"delay": "5000"}, f"delay: got '5000'; {DURATION}"),
    ({"delay": True}, f"delay: got True; {DURATION}"),
    ({"delay": math.nan}, f"delay: got nan; {DURATION}"),
    ({"delay": math.inf}, f"delay: got inf; {DURATION}"),
    ({"delay": 2**53}, f"delay: got 9007199254740992; {DURATION}"),
    ({"delay": timedelta(seconds=-1)}, f"delay: got -1000.0; {DURATION}"),
    ({"delay": [5]}, f"delay: got [5]; {DURATION}"),
    (
        {"run_at": NAIVE},
        "run_at: got the naive datetime datetime.datetime(2035, 1, 1, 0, 0), which means another moment",
    ),
    ({"run_at": NAIVE}, "give it a time zone, such as datetime(..., tzinfo=UTC)"),
    ({"run_at": "2035-01-01"}, "run_at: got '2035-01-01'; allowed is"),
    ({"run_at": date(2035, 1, 1)}, "run_at: got datetime.date(2035, 1, 1); allowed is"),
    ({"run_at": -1}, "run_at: got -1; allowed is"),
    ({"run_at": "2035-01-01"}, "datetime"),
    ({"run_at": 5, "delay": 5}, "delay and run_at: give one of them"),
    ({"timestamp": NAIVE}, "timestamp: got the naive datetime"),
    ({"timestamp": -1}, "timestamp: got -1; allowed is"),
    ({"timestamp": "now"}, "timestamp: got 'now'; allowed is"),
    ({"timestamp": datetime(1960, 1, 1, tzinfo=UTC)}, "timestamp: got"),
    ({"priority": -1}, "priority: got -1; allowed is a whole number from 0 to 2097151"),
    ({"priority": 2_097_152}, "priority: got 2097152; allowed is a whole number from 0 to 2097151"),
    ({"priority": 1.5}, "priority: got 1.5; allowed is a whole number from 0 to 2097151"),
    ({"priority": 1.0}, "priority: got 1.0; allowed is a whole number"),
    ({"priority": True}, "priority: got True; allowed is a whole number"),
    ({"priority": "1"}, "priority: got '1'; allowed is a whole number"),
    ({"lifo": 1}, "lifo: got 1; allowed is True or False"),
    ({"lifo": "yes"}, "lifo: got 'yes'; allowed is True or False"),
    ({"attempts": -1}, f"attempts: got -1; {WHOLE}"),
    ({"attempts": 2.5}, f"attempts: got 2.5; {WHOLE}"),
    ({"attempts": "3"}, f"attempts: got '3'; {WHOLE}"),
    ({"attempts": True}, f"attempts: got True; {WHOLE}"),
    ({"backoff": -1}, f"backoff: got -1; {DURATION}"),
    ({"backoff": [1]}, "backoff: got [1]; allowed is"),
    ({"backoff": "fixed"}, "backoff: got 'fixed'; allowed is"),
    ({"backoff": "fixed"}, "Backoff.fixed"),
    ({"backoff": {"delay": 1}}, "backoff.type: missing; use Backoff.fixed(...) or Backoff.exponential(...)"),
    ({"backoff": {"type": 5}}, "backoff.type: got 5"),
    ({"backoff": {"type": "fixed", "delay": -1}}, f"backoff.delay: got -1; {DURATION}"),
    ({"backoff": {"type": "fixed", "delay": "1"}}, f"backoff.delay: got '1'; {DURATION}"),
    ({"backoff": {"type": "fixed", "jitter": 1.1}}, "backoff.jitter: got 1.1; allowed is a number from 0 to 1"),
    ({"backoff": {"type": "fixed", "jitter": -0.1}}, "backoff.jitter: got -0.1; allowed is a number from 0 to 1"),
    ({"backoff": {"type": "fixed", "jitter": math.nan}}, "backoff.jitter: got nan; allowed is a number from 0 to 1"),
    ({"backoff": {"type": "fixed", "jitter": "1"}}, "backoff.jitter: got '1'; allowed is a number from 0 to 1"),
    ({"backoff": {"type": "fixed", "jitter": True}}, "backoff.jitter: got True; allowed is a number from 0 to 1"),
    ({"job_id": 5}, "job_id: got 5; allowed is a text"),
    ({"job_id": b"x"}, "job_id: got b'x'; allowed is a text"),
    ({"job_id": 0}, "job_id: got 0; allowed is a text"),
    ({"job_id": False}, "job_id: got False; allowed is a text"),
    ({"job_id": "5"}, "job_id: '5' is a number, which could be another job's; put a word before it"),
    ({"job_id": "0"}, "job_id: '0' is a number"),
    ({"job_id": "-5"}, "job_id: '-5' is a number"),
    ({"job_id": "0:a:b"}, "job_id: '0:a:b' begins with '0:', which is taken for a marker; choose another"),
    ({"job_id": "a:b"}, "job_id: 'a:b' contains ':'; use another separator, such as '-'"),
    ({"job_id": "a:b:c:d"}, "job_id: 'a:b:c:d' contains ':'; use another separator, such as '-'"),
    ({"job_id": "7:lock"}, "job_id: '7:lock' contains ':'"),
    ({"remove_on_complete": -1}, f"remove_on_complete: got -1; {WHOLE}"),
    ({"remove_on_complete": 1.5}, f"remove_on_complete: got 1.5; {KEEP}"),
    ({"remove_on_complete": "all"}, f"remove_on_complete: got 'all'; {KEEP}"),
    ({"remove_on_complete": {"age": -1}}, f"remove_on_complete.age: got -1; {WHOLE}"),
    ({"remove_on_complete": {"count": "5"}}, f"remove_on_complete.count: got '5'; {WHOLE}"),
    ({"remove_on_complete": {"limit": 1.5}}, f"remove_on_complete.limit: got 1.5; {WHOLE}"),
    ({"remove_on_fail": -1}, f"remove_on_fail: got -1; {WHOLE}"),
    ({"remove_on_fail": [5]}, f"remove_on_fail: got [5]; {KEEP}"),
    ({"remove_on_fail": {"age": True}}, f"remove_on_fail.age: got True; {WHOLE}"),
    ({"keep_logs": -1}, f"keep_logs: got -1; {WHOLE}"),
    ({"keep_logs": "5"}, f"keep_logs: got '5'; {WHOLE}"),
    ({"size_limit": -1}, f"size_limit: got -1; {WHOLE}"),
    ({"size_limit": 1.5}, f"size_limit: got 1.5; {WHOLE}"),
    ({"stack_trace_limit": -1}, f"stack_trace_limit: got -1; {WHOLE}"),
    ({"stack_trace_limit": "0"}, f"stack_trace_limit: got '0'; {WHOLE}"),
    ({"deduplication": "K"}, "deduplication: got 'K'; allowed is Deduplication.simple(id) or another of its kinds"),
    ({"deduplication": {}}, "deduplication.id: missing or empty; allowed is a text"),
    ({"deduplication": {"id": ""}}, "deduplication.id: missing or empty; allowed is a text"),
    ({"deduplication": {"id": None}}, "deduplication.id: missing or empty; allowed is a text"),
    ({"deduplication": {"id": 5}}, "deduplication.id: got 5; allowed is a text"),
    ({"deduplication": {"id": "K", "ttl": -1}}, f"deduplication.ttl: got -1; {DURATION}"),
    ({"deduplication": {"id": "K", "ttl": "5"}}, f"deduplication.ttl: got '5'; {DURATION}"),
    ({"deduplication": {"id": "K", "extend": 1}}, "deduplication.extend: got 1; allowed is True or False"),
    ({"deduplication": {"id": "K", "replace": "no"}}, "deduplication.replace: got 'no'; allowed is True or False"),
    ({"deduplication": {"id": "K", "reschedule": 0}}, "deduplication.reschedule: got 0; allowed is True or False"),
    ({"deduplication": {"id": "K", "keep_last_if_active": 1}}, "deduplication.keep_last_if_active: got 1; allowed is"),
    ({"deduplication": {"id": "K"}, "parent": PARENT}, "deduplication and parent: give one of them"),
    ({"parent": "7"}, "parent: got '7'; allowed is a job, or a dict with its id and queue"),
    ({"parent": {"id": "7"}}, "parent.queue: got ''; allowed is <prefix>:<queue>, as 'bull:mail'"),
    ({"parent": {"id": "7", "queue": "mail"}}, "parent.queue: got 'mail'; allowed is <prefix>:<queue>, as 'bull:mail'"),
    ({"parent": {"id": "7", "queue": "bull:"}}, "parent.queue: got 'bull:'; allowed is"),
    ({"parent": {"id": "7", "queue": 5}}, "parent.queue: got 5; allowed is a text"),
    ({"parent": {"queue": "bull:mail"}}, "parent.id: missing or empty; allowed is the id of a job"),
    ({"parent": {"id": 7, "queue": "bull:mail"}}, "parent.id: got 7; allowed is a text"),
    ({"fail_parent_on_failure": 1}, "fail_parent_on_failure: got 1; allowed is True or False"),
    (
        {"fail_parent_on_failure": True, "continue_parent_on_failure": True},
        "continue_parent_on_failure: got True; allowed is one of fail_parent_on_failure, continue_parent_on_failure, ",
    ),
    (
        {"ignore_dependency_on_failure": True, "remove_dependency_on_failure": True},
        "remove_dependency_on_failure: got True; allowed is one of",
    ),
    ({"remove_dependency_on_failure": "yes"}, "remove_dependency_on_failure: got 'yes'; allowed is True or False"),
    ({"telemetry": "00-ab"}, "telemetry: got '00-ab'; allowed is a dict with metadata and omit_context"),
    ({"telemetry": {"metadata": 5}}, "telemetry.metadata: got 5; allowed is a text"),
    ({"telemetry": {"omit_context": 1}}, "telemetry.omit_context: got 1; allowed is True or False"),
]
UNKNOWN_JOB_OPTIONS = [
    ({"dely": 5}, "a job has no option 'dely'; did you mean 'delay'?"),
    ({"atempts": 5}, "a job has no option 'atempts'; did you mean 'attempts'?"),
    ({"jobId": "x"}, "a job has no option 'jobId'; did you mean 'job_id'?"),
    ({"removeOnComplete": True}, "a job has no option 'removeOnComplete'; did you mean 'remove_on_complete'?"),
    ({"zzz": 5}, "a job has no option 'zzz'; allowed are attempts, backoff, continue_parent_on_failure, deduplication"),
    ({"backoff": {"type": "fixed", "dely": 5}}, "backoff has no option 'dely'; did you mean 'delay'?"),
    ({"remove_on_complete": {"ages": 5}}, "remove_on_complete has no option 'ages'; did you mean 'age'?"),
    ({"remove_on_fail": {"counts": 5}}, "remove_on_fail has no option 'counts'; did you mean 'count'?"),
    ({"deduplication": {"id": "K", "tll": 5}}, "deduplication has no option 'tll'; did you mean 'ttl'?"),
    (
        {"deduplication": {"id": "K", "keepLastIfActive": True}},
        "deduplication has no option 'keepLastIfActive'; did you mean 'keep_last_if_active'?",
    ),
    ({"parent": {"id": "7", "que": "bull:mail"}}, "parent has no option 'que'; did you mean 'queue'?"),
    ({"telemetry": {"omitContext": True}}, "telemetry has no option 'omitContext'; did you mean 'omit_context'?"),
    ({"debounce": {"id": "K"}}, "a job has no option 'debounce'; use deduplication=Deduplication.debounce(id, ttl)"),
    ({"repeat": {"every": 5}}, "a job has no option 'repeat'; use a job scheduler"),
]


def shown(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, dict) else ""


async def refused_everywhere(silent: Silent, kind: type[Exception], options: dict[str, Any], message: str) -> None:
    """By `add` and `add_bulk` of both faces."""
    for queue in queues(silent):
        for action in (
            later(queue.add, "n", {}, **options),
            later(queue.add_bulk, [("first", {}), ("n", {}, options)]),
        ):
            assert message in await silent.refuses(kind, action)


@pytest.mark.parametrize(("options", "message"), BAD_JOB_OPTIONS, ids=shown)
async def test_a_bad_option_of_a_job_is_named_with_what_is_allowed(
    silent: Silent, options: dict[str, Any], message: str
) -> None:
    await refused_everywhere(silent, ConfigurationError, options, message)


@pytest.mark.parametrize(("options", "message"), UNKNOWN_JOB_OPTIONS, ids=shown)
async def test_an_unknown_option_of_a_job_is_refused_with_the_nearest_known_one(
    silent: Silent, options: dict[str, Any], message: str
) -> None:
    await refused_everywhere(silent, TypeError, options, message)


@FACES
@pytest.mark.parametrize(
    ("options", "message"), [row for row in BAD_JOB_OPTIONS if isinstance(row, tuple) and len(row) == 2], ids=shown
)
def test_a_bad_default_is_refused_when_the_queue_is_made(face: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        face.Queue("q", default_job_options=options)
    assert message in str(caught.value)


@FACES
@pytest.mark.parametrize(("options", "message"), UNKNOWN_JOB_OPTIONS, ids=shown)
def test_an_unknown_default_is_refused_when_the_queue_is_made(face: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        face.Queue("q", default_job_options=options)
    assert message in str(caught.value)


def test_every_option_of_a_job_has_a_bad_value_here() -> None:
    rows = [row if isinstance(row, tuple) and len(row) == 2 else row.values for row in BAD_JOB_OPTIONS]
    assert {name for options, _ in rows for name in options} == set(JobOptions.__annotations__)


def test_the_kinds_of_deduplication_are_those_of_every_other_client() -> None:
    minute = timedelta(minutes=1)
    assert Deduplication.simple("K") == {"id": "K"}
    assert Deduplication.throttle("K", 5000) == {"id": "K", "ttl": 5000}
    assert Deduplication.throttle("K", minute, extend=True) == {"id": "K", "ttl": 60_000, "extend": True}
    assert Deduplication.debounce("K", minute) == {"id": "K", "ttl": 60_000, "extend": True, "replace": True}
    assert Deduplication.keep_last("K") == {"id": "K", "keep_last_if_active": True}
    for make in (
        later(Deduplication.simple, ""),
        later(Deduplication.throttle, "K", "5"),
        later(Deduplication.throttle, "K", 5, extend=1),
        later(Deduplication.debounce, 7, 5),
        later(Deduplication.keep_last, None),
    ):
        with pytest.raises(ConfigurationError):
            make()


@pytest.mark.parametrize("method", ["get_deduplication_job_id", "remove_deduplication_key"])
async def test_a_deduplication_id_that_is_no_text_is_refused(silent: Silent, method: str) -> None:
    for queue in queues(silent):
        message = await silent.refuses(ConfigurationError, later(getattr(queue, method), 5))
        assert message == "deduplication_id: got 5; allowed is a text"


STRUCTURES = [
    "wait", "paused", "active", "prioritized", "delayed", "waiting-children", "completed", "failed", "stalled",
    "stalled-check", "limiter", "meta", "marker", "events", "id", "pc", "repeat", "de", "dn", "metrics", "priority",
    "delay",
]  # fmt: skip


@pytest.mark.parametrize("job_id", STRUCTURES)
async def test_an_id_that_names_a_part_of_the_queue_is_refused(silent: Silent, job_id: str) -> None:
    message = f"job_id: {job_id!r} is the name of a part of the queue; choose another"
    await refused_everywhere(silent, ConfigurationError, {"job_id": job_id}, message)


@pytest.mark.parametrize(
    "job_id", ["metrics:completed:data", "metrics:failed:data", "repeat:nightly:5", "de:a:b", "dn:a:b"]
)
async def test_an_id_of_three_parts_that_names_a_part_of_the_queue_is_refused(silent: Silent, job_id: str) -> None:
    await refused_everywhere(silent, ConfigurationError, {"job_id": job_id}, f"job_id: {job_id!r}")


async def test_size_limit_counts_bytes_of_json(silent: Silent) -> None:
    for queue in queues(silent):
        message = await silent.refuses(ConfigurationError, later(queue.add, "n", "\u00e9", size_limit=3))
        assert message == "data: 4 bytes of JSON, but size_limit is 3"


# --- names and data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [5, None, b"n", ["n"]])
async def test_a_job_name_that_is_no_text_is_refused(silent: Silent, name: Any) -> None:
    for queue in queues(silent):
        message = await silent.refuses(ConfigurationError, later(queue.add, name, {}))
        assert message == f"name: got {name!r}; allowed is a text"


async def test_a_job_name_that_utf_8_cannot_hold_is_refused_by_its_name(silent: Silent) -> None:
    for queue in queues(silent):
        assert "name" in await silent.refuses((ConfigurationError, SerializationError), later(queue.add, "\ud800"))


BAD_DATA = [
    (math.nan, "", "NaN is not JSON; use None or a string"),
    (-math.inf, "", "-Infinity is not JSON"),
    (b"x", "", "a value of type bytes is not JSON; use bytes.decode(), or base64"),
    ({1, 2}, "", "a value of type set is not JSON"),
    (object(), "", "a value of type object is not JSON; use dict, list, str, int, float, bool or None"),
    ({"items": [0, 1, 2, {"price": math.inf}]}, ".items[3].price", "Infinity is not JSON"),
    ({"a": {"b": b"x"}}, ".a.b", "a value of type bytes"),
    ({"a b": {"c.d": object()}}, '["a b"]["c.d"]', "a value of type object"),
    ([[[math.nan]]], "[0][0][0]", "NaN"),
    ({"a": {(1, 2): 3}}, ".a", "a key of type tuple is not JSON; use a str"),
    (cycle, "[0]", "the value contains itself; JSON has no references"),
    ({"a": "\ud800"}, ".a", "the text has a lone surrogate, which UTF-8 cannot hold"),
]


@pytest.mark.parametrize(
    ("data", "path", "reason"), BAD_DATA, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_data_that_is_not_json_is_refused_with_the_path_to_it(
    silent: Silent, data: Any, path: str, reason: str
) -> None:
    for queue in queues(silent):
        for argument, action in {
            "data": later(queue.add, "n", data),
            "jobs[2].data": later(queue.add_bulk, [("a", 1), ("b", 2), ("c", data), ("d", 4)]),
            "progress": later(queue.update_job_progress, "1", data),
        }.items():
            message = await silent.refuses(SerializationError, action)
            assert message.startswith(f"{argument}{path}: ")
            assert reason in message


# --- add_bulk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("n", {}, {"delay": -1}), "jobs[1].delay: got -1"),
        (("n", {}, {"job_id": "a:b"}), "jobs[1].job_id: 'a:b'"),
        (("n", {}, {"dely": 5}), "jobs[1]"),
        ((5, {}), "jobs[1].name: got 5"),
        (("n", {}, 5), "jobs[1]"),
        (("n", {}, None), "jobs[1]"),
        (("n",), "jobs[1]"),
        (("n", {}, {}, {}), "jobs[1]"),
        ("ab", "jobs[1]"),
        ({"name": "n", "data": {}}, "jobs[1]"),
        (None, "jobs[1]"),
    ],
    ids=repr,
)
async def test_a_bad_entry_of_a_bulk_is_refused_with_its_place(silent: Silent, entry: Any, message: str) -> None:
    for queue in queues(silent):
        text = await silent.refuses((ConfigurationError, TypeError), later(queue.add_bulk, [("a", 1), entry]))
        assert message in text


@pytest.mark.parametrize("jobs", [5, None])
async def test_a_bulk_that_is_no_list_is_refused_by_its_name(silent: Silent, jobs: Any) -> None:
    for queue in queues(silent):
        text = await silent.refuses((ConfigurationError, TypeError), later(queue.add_bulk, jobs))
        assert "jobs: got" in text


async def test_an_iterable_that_breaks_off_sends_nothing(silent: Silent) -> None:
    def jobs() -> Iterator[tuple[str, Any]]:
        yield "a", 1
        raise RuntimeError("no more")

    for queue in queues(silent):
        assert await silent.refuses(RuntimeError, later(queue.add_bulk, jobs())) == "no more"


async def test_an_empty_bulk_needs_no_redis(silent: Silent) -> None:
    for queue in queues(silent):
        assert await done(queue.add_bulk([])) == []
    silent.assert_untouched()


# --- queues ---------------------------------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("name", [5, None, b"q", "", "a:b", ":"])
def test_a_bad_queue_name_is_refused(face: Any, name: Any) -> None:
    message = f"queue name: got {name!r}; allowed is a text that is not empty and has no ':'"
    for make in (later(face.Queue, name), later(face.Worker, name, processor)):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert str(caught.value) == message


@FACES
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_len_events": -1}, f"max_len_events: got -1; {WHOLE}"),
        ({"max_len_events": "5"}, f"max_len_events: got '5'; {WHOLE}"),
        ({"skip_metas_update": 1}, "skip_metas_update: got 1; allowed is True or False"),
        ({"max_len_events": True}, f"max_len_events: got True; {WHOLE}"),
        ({"prefix": 5}, "prefix: got 5"),
        ({"prefix": None}, "prefix: got None"),
        ({"default_job_options": 5}, "default_job_options: got"),
        ({"default_job_options": [1]}, "default_job_options: got"),
        ({"default_job_options": {"attempts": -1}}, "default_job_options.attempts"),
    ],
    ids=shown,
)
def test_a_bad_option_of_a_queue_is_named_with_what_is_allowed(
    face: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        face.Queue("q", **options)
    assert message in str(caught.value)


@FACES
def test_an_unknown_option_of_a_queue_or_worker_is_refused_with_the_nearest_known_one(face: Any) -> None:
    for make, near in (
        (later(face.Queue, "q", conection="x"), "connection"),
        (later(face.Worker, "q", processor, concurency=5), "concurrency"),
    ):
        with pytest.raises(TypeError) as caught:
            make()
        assert f"did you mean {near!r}?" in str(caught.value)


STATES = "allowed are active, completed, delayed, failed, prioritized, waiting, waiting-children"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda queue: queue.get_jobs("wating"), f"types: got 'wating'; {STATES}"),
        (lambda queue: queue.get_jobs(["waiting", "done"]), f"types: got 'done'; {STATES}"),
        (lambda queue: queue.get_jobs([5]), f"types: got 5; {STATES}"),
        (lambda queue: queue.get_job_counts("done"), f"types: got 'done'; {STATES}"),
        (lambda queue: queue.get_job_counts("waiting", None), f"types: got None; {STATES}"),
        (lambda queue: queue.get_job_counts(["waiting"]), f"types: got ['waiting']; {STATES}"),
        (lambda queue: queue.add_job_log("1", "line", -1), f"keep_logs: got -1; {WHOLE}"),
        (lambda queue: queue.add_job_log("1", "line", keep_logs="5"), f"keep_logs: got '5'; {WHOLE}"),
        (lambda queue: queue.add_job_log("1", "line", keep_logs=1.5), f"keep_logs: got 1.5; {WHOLE}"),
        (lambda queue: queue.get_jobs(5), "types: got 5"),
        (lambda queue: queue.get_jobs(start="0"), "start: got '0'"),
        (lambda queue: queue.get_jobs(start=2**70), "start: got"),
        (lambda queue: queue.get_jobs(end=1.5), "end: got 1.5"),
        (lambda queue: queue.get_jobs(asc="yes"), "asc: got 'yes'"),
        (lambda queue: queue.get_job_logs("1", "0"), "start: got '0'"),
        (lambda queue: queue.get_job_logs("1", end="0"), "end: got '0'"),
        (lambda queue: queue.get_job("\ud800"), "job_id: "),
        (lambda queue: queue.add_job_log("1", "\ud800"), "row: "),
        # These look at, and write to, what is no job.
        (lambda queue: queue.get_job("meta"), "'meta'"),
        (lambda queue: queue.update_job_progress("meta", 1), "'meta'"),
        (lambda queue: queue.add_job_log("id", "x"), "'id'"),
    ],
)
async def test_a_bad_argument_of_a_queue_is_named_with_what_is_allowed(
    silent: Silent, action: Callable[[Any], Any], message: str
) -> None:
    for queue in queues(silent):
        assert message in await silent.refuses(ConfigurationError, later(action, queue))


# --- workers --------------------------------------------------------------------------------------------------------

BAD_WORKER_OPTIONS: list[Any] = [
    ({"telemetry": "otel"}, "telemetry: got 'otel'; allowed is toromq.telemetry.OpenTelemetry(), or an object"),
    ({"name": 5}, "name: got 5; allowed is a text"),
    ({"concurrency": 0}, "concurrency: got 0; allowed is a whole number from 1 to 100000"),
    ({"concurrency": -1}, "concurrency: got -1; allowed is a whole number from 1 to 100000"),
    ({"concurrency": 1.5}, "concurrency: got 1.5; allowed is a whole number from 1 to 100000"),
    ({"concurrency": "2"}, "concurrency: got '2'; allowed is a whole number from 1 to 100000"),
    ({"concurrency": True}, "concurrency: got True; allowed is a whole number from 1 to 100000"),
    ({"concurrency": 100_001}, "concurrency: got 100001; allowed is a whole number from 1 to 100000"),
    ({"lock_duration": -1}, f"lock_duration: got -1; {DURATION}"),
    ({"lock_duration": "30s"}, f"lock_duration: got '30s'; {DURATION}"),
    ({"lock_duration": None}, f"lock_duration: got None; {DURATION}"),
    ({"lock_renew_time": -1}, f"lock_renew_time: got -1; {DURATION}"),
    ({"lock_renew_time": 30_000}, "lock_renew_time: 30000 ms is not below lock_duration, 30000 ms"),
    ({"lock_duration": 500, "lock_renew_time": timedelta(seconds=1)}, "lock_renew_time: 1000 ms is not below"),
    ({"skip_lock_renewal": 1}, "skip_lock_renewal: got 1; allowed is True or False"),
    ({"stalled_interval": -1}, f"stalled_interval: got -1; {DURATION}"),
    ({"stalled_interval": timedelta(days=-1)}, f"stalled_interval: got -86400000.0; {DURATION}"),
    ({"max_stalled_count": -1}, f"max_stalled_count: got -1; {WHOLE}"),
    ({"max_stalled_count": 1.0}, f"max_stalled_count: got 1.0; {WHOLE}"),
    ({"skip_stalled_check": None}, "skip_stalled_check: got None; allowed is True or False"),
    ({"max_started_attempts": 0}, "max_started_attempts: got 0; allowed is a whole number from 1 to"),
    ({"max_started_attempts": 2.0}, "max_started_attempts: got 2.0; allowed is a whole number from 1 to"),
    ({"max_started_attempts": True}, "max_started_attempts: got True; allowed is a whole number from 1 to"),
    ({"drain_delay": 0}, "drain_delay: got 0; allowed are seconds, more than 0 to 3600"),
    ({"drain_delay": -1}, "drain_delay: got -1; allowed are seconds, more than 0 to 3600"),
    ({"drain_delay": 5000}, "drain_delay: got 5000; allowed are seconds, more than 0 to 3600"),
    ({"drain_delay": math.nan}, "drain_delay: got nan; allowed are seconds, more than 0 to 3600"),
    ({"drain_delay": "5"}, "drain_delay: got '5'; allowed are seconds, more than 0 to 3600"),
    ({"drain_delay": True}, "drain_delay: got True; allowed are seconds, more than 0 to 3600"),
    ({"drain_delay": timedelta(hours=2)}, "allowed are seconds, more than 0 to 3600"),
    ({"limiter": 5}, "limiter: got 5; allowed is RateLimit(max, duration)"),
    ({"limiter": {"max": 1, "duration": 1}}, "limiter: got {'max': 1, 'duration': 1}; allowed is RateLimit("),
    ({"limiter": (1, 2, 3)}, "limiter: got (1, 2, 3); allowed is RateLimit(max, duration)"),
    ({"limiter": RateLimit(0, 1000)}, "limiter.max: got 0; allowed is a whole number from 1 to"),
    ({"limiter": RateLimit(True, 1000)}, "limiter.max: got True; allowed is a whole number from 1 to"),
    ({"limiter": RateLimit(1.5, 1000)}, "limiter.max: got 1.5; allowed is a whole number from 1 to"),  # type: ignore[arg-type]
    ({"limiter": RateLimit(1, -1)}, f"limiter.duration: got -1; {DURATION}"),
    ({"limiter": RateLimit(1, "1s")}, f"limiter.duration: got '1s'; {DURATION}"),  # type: ignore[arg-type]
    ({"maximum_rate_limit_delay": -1}, f"maximum_rate_limit_delay: got -1; {DURATION}"),
    ({"run_retry_delay": -1}, f"run_retry_delay: got -1; {DURATION}"),
    ({"run_retry_delay": "1s"}, f"run_retry_delay: got '1s'; {DURATION}"),
    ({"metrics": True}, "metrics: got True; allowed is Metrics(max_data_points), or a number of minutes such as"),
    ({"metrics": {"max_data_points": 5}}, "metrics: got {'max_data_points': 5}; allowed is Metrics("),
    ({"metrics": 0}, "metrics: got 0; allowed is a whole number from 1 to 1000000"),
    ({"metrics": Metrics(0)}, "metrics.max_data_points: got 0; allowed is a whole number from 1 to 1000000"),
    ({"metrics": Metrics("5")}, "metrics.max_data_points: got '5'; allowed is a whole number"),  # type: ignore[arg-type]
    ({"remove_on_complete": -1}, f"remove_on_complete: got -1; {WHOLE}"),
    ({"remove_on_complete": "all"}, f"remove_on_complete: got 'all'; {KEEP}"),
    ({"remove_on_complete": {"age": -1}}, f"remove_on_complete.age: got -1; {WHOLE}"),
    ({"remove_on_fail": 1.5}, f"remove_on_fail: got 1.5; {KEEP}"),
    ({"remove_on_fail": {"count": None, "limit": -1}}, f"remove_on_fail.limit: got -1; {WHOLE}"),
    ({"backoff_strategy": 5}, "backoff_strategy: got 5; allowed is a function"),
    ({"backoff_strategy": "exponential"}, "backoff_strategy: got 'exponential'; allowed is a function"),
    ({"data_type": dict}, "data_type: got <class 'dict'>; allowed are a pydantic model"),
    ({"result_type": 5}, "result_type: got 5; allowed are a pydantic model"),
    ({"sandbox": SandboxOptions()}, "sandbox: these options are for processors in child processes; this is none"),
    ({"connection": 5}, "connection: got int; allowed is a URL or a toromq.Connection"),
    ({"prefix": 5}, "prefix: got 5"),
    ({"name": "\ud800"}, "name: got"),
    ({"name": "mail 1"}, "name: got"),
]


@FACES
@pytest.mark.parametrize(("options", "message"), BAD_WORKER_OPTIONS, ids=shown)
def test_a_bad_option_of_a_worker_is_named_with_what_is_allowed(
    face: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        face.Worker("q", processor, **options)
    assert message in str(caught.value)


def test_every_option_of_a_worker_has_a_bad_value_here() -> None:
    rows = [row if isinstance(row, tuple) and len(row) == 2 else row.values for row in BAD_WORKER_OPTIONS]
    options = inspect.signature(toromq.Worker).parameters.values()
    assert {name for given, _ in rows for name in given} == {
        option.name for option in options if option.kind is option.KEYWORD_ONLY
    }


@FACES
def test_an_unknown_part_of_a_workers_keep_policy_is_refused_with_the_nearest_known_one(face: Any) -> None:
    for option in ("remove_on_complete", "remove_on_fail"):
        with pytest.raises(TypeError, match=f"{option} has no option 'ages'; did you mean 'age'"):
            face.Worker("q", processor, **{option: {"ages": 5}})


@FACES
@pytest.mark.parametrize(
    ("option", "meant"),
    [("autorun", r"it starts when it is told to: .* worker\.run\(\)"), ("settings", "give backoff_strategy itself")],
)
def test_an_option_of_another_library_is_refused_with_what_is_meant_here(face: Any, option: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"^a Worker has no option '{option}': {meant}"):
        face.Worker("q", processor, **{option: True})


def test_the_times_of_metrics_are_those_of_every_client() -> None:
    assert {time.name: int(time) for time in MetricsTime} == {
        "ONE_MINUTE": 1, "FIVE_MINUTES": 5, "FIFTEEN_MINUTES": 15, "THIRTY_MINUTES": 30, "ONE_HOUR": 60,
        "ONE_WEEK": 10_080, "TWO_WEEKS": 20_160, "ONE_MONTH": 80_640,
    }  # fmt: skip


@FACES
@pytest.mark.parametrize("given", [5, b"package.module:function", {}])
def test_a_processor_that_cannot_be_called_is_refused(face: Any, given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        face.Worker("q", given)
    allowed = "allowed is a function that takes a job, or a text that names one"
    assert str(caught.value) == f"processor: got {given!r}; {allowed}"


def test_the_blocking_worker_refuses_coroutine_functions() -> None:
    async def process(job: Any) -> None: ...

    class Processor:
        async def __call__(self, job: Any) -> None: ...

    for given in (process, Processor()):
        with pytest.raises(ConfigurationError, match=r"processor: .* use toromq\.Worker"):
            sync.Worker("q", given)
    worker: Any = sync.Worker("q", processor)
    with pytest.raises(ConfigurationError, match=r"listener: .* use toromq\.Worker"):
        worker.on("completed", process)


@FACES
def test_a_bad_concurrency_is_refused_later_too_and_changes_nothing(face: Any) -> None:
    worker = face.Worker("q", processor, concurrency=3)
    with pytest.raises(ConfigurationError, match="concurrency: got 0; allowed is a whole number from 1 to 100000"):
        worker.concurrency = 0
    assert worker.concurrency == 3


@FACES
@pytest.mark.parametrize("method", ["on", "once"])
def test_an_unknown_event_and_a_listener_that_is_none_are_refused(face: Any, method: str) -> None:
    listen = getattr(face.Worker("q", processor), method)
    with pytest.raises(
        ConfigurationError, match="event: got 'complete'; allowed are active, closed, closing, completed"
    ):
        listen("complete", print)
    with pytest.raises(ConfigurationError, match="listener: got 5; allowed is a function"):
        listen("completed", 5)


@FACES
@pytest.mark.parametrize("token", ["", "0", 5, None])
async def test_a_token_that_would_lock_nothing_is_refused(face: Any, silent: Silent, token: Any) -> None:
    worker = face.Worker("q", connection=silent.connection)
    message = await silent.refuses(ConfigurationError, lambda: worker.get_next_job(token))
    assert message == f"token: got {token!r}; allowed is a text that is not empty and not '0'"


@FACES
async def test_a_worker_without_a_processor_cannot_run(face: Any, silent: Silent) -> None:
    worker = face.Worker("q", connection=silent.connection)
    message = await silent.refuses(ConfigurationError, lambda: worker.run())
    assert message == "processor: None, so this worker can only fetch by hand; give it a function"


@FACES
def test_making_queues_and_workers_connects_to_nothing(face: Any, silent: Silent) -> None:
    face.Queue("q", connection=silent.connection)
    face.Worker("q", processor, connection=silent.connection)
    silent.assert_untouched()


# --- what makes options ---------------------------------------------------------------------------------------------


def test_backoff_makes_the_options_it_says() -> None:
    assert Backoff.fixed(1000) == {"type": "fixed", "delay": 1000}
    assert Backoff.fixed(timedelta(seconds=1), jitter=0.5) == {"type": "fixed", "delay": 1000, "jitter": 0.5}
    assert Backoff.exponential(1.6) == {"type": "exponential", "delay": 2}  # type: ignore[arg-type]
    assert Backoff.exponential(0, jitter=0) == {"type": "exponential", "delay": 0, "jitter": 0}
    assert Backoff.custom("mine") == {"type": "mine"}
    assert Backoff.custom("mine", 5) == {"type": "mine", "delay": 5}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Backoff.fixed(-1), f"backoff: got -1; {DURATION}"),
        (lambda: Backoff.fixed("1s"), f"backoff: got '1s'; {DURATION}"),  # type: ignore[arg-type]
        (lambda: Backoff.exponential(math.nan), f"backoff: got nan; {DURATION}"),  # type: ignore[arg-type]
        (lambda: Backoff.custom("mine", -1), f"backoff: got -1; {DURATION}"),
        (lambda: Backoff.fixed(1, jitter=5), "jitter: got 5"),
        (lambda: Backoff.custom(5), "type: got 5"),  # type: ignore[arg-type]
    ],
)
def test_backoff_refuses_what_no_job_could_use(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert message in str(caught.value)
