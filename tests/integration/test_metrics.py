"""What a queue tells of the jobs that ended: per-minute series and the text for Prometheus, in both faces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import toromq
from toromq import ConfigurationError, sync
from toromq.metrics import MetricsMeta, QueueMetrics

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def name() -> str:
    return "q"


@pytest.fixture
async def queue(face: Any, redisbox: RedisBox, prefix: str, name: str) -> AsyncIterator[Any]:
    made = face.Queue(name, connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


# --- series -----------------------------------------------------------------------------------------------------------


async def test_a_queue_that_nobody_counts_has_empty_series(queue: Any) -> None:
    nothing = QueueMetrics(MetricsMeta(0, 0, 0), [], 0)
    assert await done(queue.get_metrics("completed")) == nothing
    assert await done(queue.get_metrics(type="failed", start=0, end=10)) == nothing


async def test_a_series_is_told_by_place_with_its_totals(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    key = f"{prefix}:q:metrics:failed"
    redis.hset(key, mapping={"count": 9, "prevTS": 1_700_000_000_000, "prevCount": 8})
    redis.rpush(f"{key}:data", 0, 0, 5, 1, 2)
    meta = MetricsMeta(count=9, prev_ts=1_700_000_000_000, prev_count=8)
    assert await done(queue.get_metrics("failed")) == QueueMetrics(meta, [0, 0, 5, 1, 2], 5)
    assert await done(queue.get_metrics("failed", 1, 2)) == QueueMetrics(meta, [0, 5], 5)
    assert await done(queue.get_metrics("failed", -2)) == QueueMetrics(meta, [1, 2], 5)
    assert (await done(queue.get_metrics("completed"))).count == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("waiting",), "type: got 'waiting'; allowed are completed, failed"),
        ((None,), "type: got None; allowed are completed, failed"),
        (("completed", 1.5), "start: got 1.5; allowed is a whole number"),
        (("completed", 0, "all"), "end: got 'all'; allowed is a whole number"),
    ],
)
async def test_what_is_no_series_is_refused(queue: Any, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await done(queue.get_metrics(*arguments))
    assert str(refused.value).startswith(said)


# --- text for Prometheus ----------------------------------------------------------------------------------------------


async def test_counts_and_totals_are_told_in_the_words_of_bullmq(
    queue: Any, redis: redis_py.Redis, prefix: str
) -> None:
    await done(queue.add_bulk([("n", 1), ("n", 2), ("n", 3, {"priority": 1}), ("n", 4, {"delay": 600_000})]))
    redis.hset(f"{prefix}:q:metrics:completed", mapping={"count": 6, "prevTS": 1, "prevCount": 5})
    assert await done(queue.export_prometheus_metrics()) == (
        "# HELP bullmq_job_count Number of jobs in the queue by state\n"
        "# TYPE bullmq_job_count gauge\n"
        'bullmq_job_count{queue="q", state="active"} 0\n'
        'bullmq_job_count{queue="q", state="completed"} 0\n'
        'bullmq_job_count{queue="q", state="delayed"} 1\n'
        'bullmq_job_count{queue="q", state="failed"} 0\n'
        'bullmq_job_count{queue="q", state="prioritized"} 1\n'
        'bullmq_job_count{queue="q", state="waiting"} 2\n'
        'bullmq_job_count{queue="q", state="waiting-children"} 0\n'
        "# HELP bullmq_job_completed_total Total number of completed jobs\n"
        "# TYPE bullmq_job_completed_total counter\n"
        'bullmq_job_completed_total{queue="q"} 6\n'
        "# HELP bullmq_job_failed_total Total number of failed jobs\n"
        "# TYPE bullmq_job_failed_total counter\n"
        'bullmq_job_failed_total{queue="q"} 0'
    )


@pytest.mark.parametrize("name", ['a"b\\c\nd{}, é', "plain"])
async def test_the_text_is_what_prometheus_reads(queue: Any, name: str) -> None:
    await done(queue.add("n", 1))
    labels = {"env": "prod", "odd": 'x"y\\z\n,}="'}
    text = await done(queue.export_prometheus_metrics(labels))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {(name, family.type) for name, family in families.items()} == {
        ("bullmq_job_count", "gauge"),
        ("bullmq_job_completed", "counter"),
        ("bullmq_job_failed", "counter"),
    }
    counts = families["bullmq_job_count"].samples
    assert [sample.labels for sample in counts] == [
        {"queue": name, "state": state, **labels}
        for state in ("active", "completed", "delayed", "failed", "prioritized", "waiting", "waiting-children")
    ]
    assert [sample.value for sample in counts] == [0, 0, 0, 0, 0, 1, 0]
    (completed,) = families["bullmq_job_completed"].samples
    assert (completed.name, completed.labels) == ("bullmq_job_completed_total", {"queue": name, **labels})


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("env", "global_labels: got 'env'; allowed is a dict of names and texts"),
        ({"1st": "x"}, "global_labels: got the name '1st'; allowed are letters, digits and '_'"),
        ({"a-b": "x"}, "global_labels: got the name 'a-b'; allowed are letters, digits and '_'"),
        ({1: "x"}, "global_labels: got the name 1; allowed are letters, digits and '_'"),
        ({"state": "x"}, "global_labels: 'state' is a label of the metrics themselves; choose another"),
        ({"env": 1}, "global_labels.env: got 1; allowed is a text"),
    ],
)
async def test_labels_that_prometheus_could_not_read_are_refused(queue: Any, labels: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await done(queue.export_prometheus_metrics(labels))
    assert str(refused.value) == said
