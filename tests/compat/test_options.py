"""Options as bullmq takes them: where Redis is, what is passed on, what is ignored, what is refused."""

from __future__ import annotations

import inspect
import logging
import ssl
from typing import Any

import pytest
import redis.asyncio
import redis.asyncio.connection

import toromq
from toromq._packing import given_options, packed
from toromq.compat.bullmq import FlowProducer, Job, NotSupportedError, Queue, QueueKeys, Worker, optsFromJSON
from toromq.compat.bullmq._options import _CLIENT, _REFUSED, _TUNING, connection, job_options
from toromq.connection import Connection
from toromq.errors import ConfigurationError
from toromq.options import Backoff, Deduplication, JobOptions


def _leads_to(given: Any) -> dict[str, Any]:
    """What a connection's options are, but for those that nobody gave."""
    made = connection(given)
    reached = made if isinstance(made, Connection) else Connection(made)
    plain = Connection("redis://localhost:6379")._options
    return {name: value for name, value in reached._options.items() if value != plain[name]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("redis://h:1/2", {"host": "h", "port": 1, "db": 2}),
        ("redis://u:p@h", {"host": "h", "username": "u", "password": "p"}),
        ("redis://h/0?socket_timeout=5&protocol=3", {"host": "h"}),
        ("redis://h?db=3&decode_responses=True", {"host": "h", "db": 3}),
        ({"host": "h", "port": 1}, {"host": "h", "port": 1}),
        ({"host": "h", "port": "1"}, {"host": "h", "port": 1}),
        ({"port": 7}, {"port": 7}),
        ({"db": 4, "username": "u", "password": "p"}, {"db": 4, "username": "u", "password": "p"}),
        ({"host": "h", "password": None, "socket_timeout": None, "retry_on_timeout": True}, {"host": "h"}),
        ({"host": "h", "ssl": False, "ssl_ca_certs": None}, {"host": "h"}),
        ({"host": "h", "ssl": True, "ssl_cert_reqs": "required"}, {"host": "h", "tls": True}),
        ({"host": "h", "ssl": True, "ssl_cert_reqs": ssl.CERT_REQUIRED}, {"host": "h", "tls": True}),
        ({"unix_socket_path": "/s", "db": 2}, {"path": "/s", "db": 2}),
        ({"host": "h", "client_name": "web"}, {"host": "h", "client_name": "web"}),
    ],
)
def test_a_connection_is_a_url_or_the_options_of_redis_py(given: Any, expected: dict[str, Any]) -> None:
    assert _leads_to(given) == expected


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (redis.asyncio.Redis(host="h", port=1, db=2, password="p"), {"host": "h", "port": 1, "db": 2, "password": "p"}),
        (redis.asyncio.Redis.from_url("redis://u:p@h:1/2"), {
            "host": "h", "port": 1, "db": 2, "username": "u", "password": "p",
        }),
        (redis.asyncio.Redis(host="h", ssl=True), {"host": "h", "tls": True}),
        (redis.asyncio.Redis.from_url("rediss://h"), {"host": "h", "tls": True}),
        (redis.asyncio.Redis(unix_socket_path="/s", db=3), {"path": "/s", "db": 3}),
        (redis.Redis(host="h", decode_responses=True), {"host": "h"}),
        (redis.asyncio.Redis(connection_pool=redis.asyncio.ConnectionPool(host="h", db=5)), {"host": "h", "db": 5}),
    ],
)  # fmt: skip
def test_a_client_of_redis_py_leads_to_the_same_server(client: Any, expected: dict[str, Any]) -> None:
    assert _leads_to(client) == expected


def test_a_connection_of_ours_is_taken_as_it_is() -> None:
    ours = Connection("redis://h")
    assert connection(ours) is ours
    assert connection(None) is None
    assert connection({}) is None
    assert connection("embedded:.toromq") == "embedded:.toromq"


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"hots": "h"}, ConfigurationError, "did you mean 'host'"),
        (7, ConfigurationError, "got a value of type int"),
        ({"host": "h", "ssl": True, "ssl_cert_reqs": "none"}, NotSupportedError, "ssl_ca_certs"),
        ({"host": "h", "credential_provider": object()}, NotSupportedError, "credential_provider"),
        (redis.asyncio.Redis(host="h", ssl=True, ssl_cert_reqs="none"), NotSupportedError, "ssl_ca_certs"),
    ],
)
def test_what_can_not_be_honoured_is_refused(given: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        connection(given)


def test_a_cluster_is_refused() -> None:
    class Cluster:
        nodes_manager = None

    with pytest.raises(NotSupportedError, match="Cluster"):
        connection(Cluster())


def test_every_option_of_redis_py_has_been_thought_of() -> None:
    made = (redis.asyncio.Redis, redis.asyncio.connection.SSLConnection, redis.asyncio.UnixDomainSocketConnection)
    options = {name for kind in made for name in inspect.signature(kind).parameters} - {"kwargs"}
    known = {*_CLIENT, *_REFUSED, "connection_pool"}
    assert [name for name in sorted(options) if name not in known and not _TUNING.fullmatch(name)] == []


# --- jobs, queues, workers --------------------------------------------------------------------------------------------


def test_every_option_of_a_job_is_passed_on() -> None:
    given: dict[str, Any] = {
        "attempts": 2, "backoff": {"type": "fixed", "delay": 5, "jitter": 0.5}, "continueParentOnFailure": False,
        "deduplication": {"id": "a", "ttl": 1, "keepLastIfActive": True}, "delay": 3, "failParentOnFailure": True,
        "ignoreDependencyOnFailure": False, "jobId": "a", "keepLogs": 4, "lifo": True,
        "parent": {"id": "1", "queue": "bull:x"}, "priority": 6, "removeDependencyOnFailure": False,
        "removeOnComplete": {"age": 1, "count": 2, "limit": 3}, "removeOnFail": 7, "sizeLimit": 8, "stackTraceLimit": 9,
        "telemetry": {"metadata": "m", "omitContext": True}, "timestamp": 10,
    }  # fmt: skip
    passed = job_options(given)
    assert passed.keys() == set(JobOptions.__annotations__) - {"run_at"}
    assert passed["deduplication"] == {"id": "a", "ttl": 1, "keep_last_if_active": True}
    assert passed["telemetry"] == {"metadata": "m", "omit_context": True}
    assert passed["removeOnComplete".replace("OnC", "_on_c")] == given["removeOnComplete"]
    assert job_options(None) == {}
    assert job_options({"delay": None}) == {}


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": 3, "backoff": Backoff.exponential(5, jitter=0.5), "delay": 7, "priority": 1, "lifo": True},
        {"attempts": 1, "job_id": "a", "timestamp": 5, "remove_on_complete": True, "remove_on_fail": {"count": 3}},
        {"attempts": 1, "keep_logs": 1, "size_limit": 99, "stack_trace_limit": 3, "fail_parent_on_failure": True},
        {"attempts": 1, "deduplication": {**Deduplication.debounce("a", 5), "keep_last_if_active": True}},
        {"attempts": 1, "parent": {"id": "1", "queue": "bull:x"}, "remove_dependency_on_failure": True},
        {"attempts": 1, "telemetry": {"metadata": "m", "omit_context": True}},
    ],
)
def test_stored_options_are_read_as_they_were_given(options: dict[str, Any]) -> None:
    stored = packed("n", b"{}", options, {})[3]
    assert given_options(toromq.Job.from_json(toromq.Queue("q"), {"id": "1", "opts": stored.decode()}).opts) == options


def test_options_that_nobody_knows_are_left_out_where_they_are_stored() -> None:
    assert given_options({"attempts": 1, "repeat": {"every": 5}, "kl": 2}) == {"attempts": 1, "keep_logs": 2}
    assert optsFromJSON({"kl": 2, "de": {"id": "a", "keepLastIfActive": True}}) == {
        "keepLogs": 2,
        "deduplication": {"id": "a", "keepLastIfActive": True},
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: job_options({"atempts": 3}), "a job has no option 'atempts', which is ignored; did you mean 'attem"),
        (lambda: job_options({"repeat": {}}), "a job has no option 'repeat', which is ignored"),
        (lambda: Queue("q", {"prefxi": 1}), "a queue has no option 'prefxi', which is ignored; did you mean 'prefix'"),
        (lambda: Worker("q", None, {"concurency": 1}), "did you mean 'concurrency'?"),
    ],
)
def test_an_option_that_does_not_exist_is_ignored_as_there_but_logged(
    make: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "toromq"):
        make()
    assert message in caplog.text


def test_options_that_have_no_meaning_here_are_taken_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    idle = {"skipVersionCheck": True, "skipWaitingForReady": True, "backend": "redis"}
    Queue("q", idle)
    Worker("q", None, {**idle, "runRetryDelay": 5000, "autorun": False})
    FlowProducer("redis://h", idle)
    assert caplog.text == ""


def test_options_of_a_worker_are_passed_on() -> None:
    strategy = lambda *_: 5  # noqa: E731
    opts: dict[str, Any] = {
        "autorun": False, "concurrency": 3, "connection": "redis://h", "drainDelay": 2, "lockDuration": 1000,
        "lockRenewTime": 300, "limiter": {"max": 2, "duration": 50}, "maxStalledCount": 4, "stalledInterval": 600,
        "name": "tom", "prefix": "p", "removeOnComplete": 5, "removeOnFail": {"count": 6},
        "settings": {"backoffStrategy": strategy}, "maximumRateLimitDelay": 70,
    }  # fmt: skip
    worker = Worker("q", None, opts)
    options = worker.toromq._options
    assert {name: options[name] for name in ("concurrency", "drain_delay", "lock_duration", "lock_renew_time")} == {
        "concurrency": 3, "drain_delay": 2.0, "lock_duration": 1000, "lock_renew_time": 300,
    }  # fmt: skip
    assert (options["limiter"], options["max_stalled_count"], options["stalled_interval"]) == ((2, 50), 4, 600)
    assert (options["name"], options["remove_on_complete"], options["remove_on_fail"]) == ("tom", "5", '{"count":6}')
    assert options["maximum_rate_limit_delay"] == 70
    assert (worker.prefix, worker.qualifiedName, worker.workerName) == ("p", "p:q", "tom")
    assert worker.opts == opts
    strategy_there: Any = worker.toromq._backoff_strategy
    assert strategy_there(1, "mine", ValueError(), toromq.Job.from_json(toromq.Queue("q"), {"id": "1"})) == 5


@pytest.mark.parametrize(
    "make", [Queue, lambda name, opts: Worker(name, None, opts), lambda _, opts: FlowProducer(None, opts)]
)
def test_another_backend_is_refused(make: Any) -> None:
    with pytest.raises(NotSupportedError, match="postgres"):
        make("q", {"backend": "postgres"})


def test_a_job_can_be_made_without_a_server() -> None:
    queue = Queue("q", {"connection": "redis://127.0.0.1:1", "prefix": "p"})
    job = Job(queue, "n", {"a": 1}, {"delay": 5, "priority": 2, "parent": {"id": "1", "queue": "bull:x"}}, "77")
    assert (job.id, job.name, job.data, job.delay, job.priority, job.queue) == ("77", "n", {"a": 1}, 5, 2, queue)
    assert job.opts == {
        "attempts": 0, "delay": 5, "backoff": None, "priority": 2, "parent": {"id": "1", "queue": "bull:x"},
    }  # fmt: skip
    assert job.queueQualifiedName == "p:q"
    assert Job(queue, "n", "text").data == "text"
    read = Job.fromJSON(queue, {"name": "n", "data": '{"a":1}', "opts": '{"attempts":2}', "timestamp": "5"}, "9")
    assert (read.id, read.data, read.attempts, read.timestamp) == ("9", {"a": 1}, 2, 5)


def test_names_of_keys_are_told() -> None:
    keys = QueueKeys("p")
    assert (keys.toKey("q", "wait"), keys.getQueueQualifiedName("q")) == ("p:q:wait", "p:q")
    assert keys.getKeys("q")["active"] == "p:q:active"
    assert QueueKeys().toKey("q", "id") == "bull:q:id"
