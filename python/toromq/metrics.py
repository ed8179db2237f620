"""Figures: of a queue, which workers count in Redis for all to read; and of what this process itself did.

What this process did is counted by the engine as it works, whether anybody asks or not; that costs about a dozen
additions for a job, no lock, no thread and nothing in Redis. It is told as an object, as text for Prometheus, or to the
package prometheus-client.

Example:
    >>> from prometheus_client import REGISTRY, start_http_server
    >>> REGISTRY.register(metrics.Collector())
    >>> start_http_server(9000)
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toromq._bridge import make, telemetry
from toromq._guards import is_mapping
from toromq.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MetricsType = Literal["completed", "failed"]


@dataclass(frozen=True, slots=True)
class MetricsMeta:
    """What a series of metrics is computed from.

    Attributes:
        count: how many jobs ended so, in all.
        prev_ts: when the newest point was written, in milliseconds since the epoch; 0 before the first job.
        prev_count: how many there were in all at that time.
    """

    count: int
    prev_ts: int
    prev_count: int


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """How many jobs of a queue completed or failed in each minute.

    Attributes:
        meta: totals.
        data: the points asked for, one for each minute, the newest first. The minute that runs has none yet.
        count: how many points there are.
    """

    meta: MetricsMeta
    data: list[int]
    count: int


def check_metrics_type(given: Any) -> str:
    """The name of a series."""
    if given not in ("completed", "failed"):
        raise ConfigurationError(f"type: got {given!r}; allowed are completed, failed")
    return str(given)


_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def check_labels(name: str, given: Any, own: Iterable[str]) -> dict[str, str]:
    """Labels for every sample, beside those that the samples have of their own."""
    if given is None:
        return {}
    if not is_mapping(given):
        raise ConfigurationError(f"{name}: got {given!r}; allowed is a dict of names and texts")
    for label, value in given.items():
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise ConfigurationError(f"{name}: got the name {label!r}; allowed are letters, digits and '_'")
        if label in own:
            raise ConfigurationError(f"{name}: {label!r} is a label of the metrics themselves; choose another")
        if not isinstance(value, str):
            raise ConfigurationError(f"{name}.{label}: got {value!r}; allowed is a text")
    return dict(given)


def sample(name: str, labels: Mapping[str, str], value: int | float) -> str:
    """A line of Prometheus' text format."""
    inner = ", ".join(f"{label}={_quoted(text)}" for label, text in labels.items())
    return f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def job_counts(queue: str, counts: Mapping[str, int], totals: Mapping[str, int], labels: Mapping[str, str]) -> str:
    """A queue's counts by state and its totals, in the words and the format of BullMQ."""
    lines = ["# HELP bullmq_job_count Number of jobs in the queue by state", "# TYPE bullmq_job_count gauge"]
    lines += (sample("bullmq_job_count", {"queue": queue, "state": state, **labels}, n) for state, n in counts.items())
    for kind, total in totals.items():
        name = f"bullmq_job_{kind}_total"
        lines += [f"# HELP {name} Total number of {kind} jobs", f"# TYPE {name} counter"]
        lines.append(sample(name, {"queue": queue, **labels}, total))
    return "\n".join(lines)


# --- what this process did --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Times:
    """How often something took how long.

    Attributes:
        bounds: the upper bounds of the classes in seconds, each included; the last class has none.
        counts: how many there were of each class, one more than there are bounds.
        sum: how long all of them took together, in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def cumulated(self) -> list[tuple[str, int]]:
        """Each bound as Prometheus writes it, and how many did not take longer."""
        bounds = (*map(str, self.bounds), "+Inf")
        return list(zip(bounds, itertools.accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class QueueActivity:
    """What this process did on one queue since it began. Queues of the same name on other servers are counted with it.

    Attributes:
        prefix: what the queue's keys begin with.
        queue: its name.
        added: jobs added; not those that turned out to be there already.
        started: jobs that workers were given.
        completed: jobs stored as completed.
        failed: jobs stored as failed for good.
        retried: attempts that failed and will be made again.
        put_back: jobs that went back without an attempt: rate limited, put off by themselves, handed back by a close.
        refused: outcomes that Redis refused, mostly because the lock was gone.
        locks_lost: jobs that lost their lock while they ran.
        stalled: jobs of workers that died, which a worker here found and queued again.
        wait: from when a job was added, or due, until a worker had it; by the clocks of producer and worker. Only for
            the first start of a job, as it is not stored when it became ready for another, and was not promoted early.
        lateness: the same for jobs with a delay alone.
        handover: from when a worker had a job until its processor began: what the event loop or the threads kept it
            waiting.
        run: how long the processor took.
    """

    prefix: str
    queue: str
    added: int
    started: int
    completed: int
    failed: int
    retried: int
    put_back: int
    refused: int
    locks_lost: int
    stalled: int
    wait: Times
    lateness: Times
    handover: Times
    run: Times


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What this process did since it began; a forked child begins anew.

    Attributes:
        reconnects: connections to Redis that broke and were made anew.
        queues: for each queue that was used, ordered by prefix and name.
    """

    reconnects: int
    queues: tuple[QueueActivity, ...]


def snapshot() -> Snapshot:
    """What this process did so far."""
    bounds, reconnects, queues = make(telemetry)
    seconds = tuple(bound / 1e6 for bound in bounds)
    found: list[QueueActivity] = []
    for prefix, queue, counts, times in queues:
        fields: dict[str, Any] = dict(counts)
        fields.update((name, Times(seconds, tuple(classes), sum / 1e6)) for name, (classes, sum) in times.items())
        found.append(QueueActivity(prefix, queue, **fields))
    return Snapshot(reconnects, tuple(found))


_RECONNECTS = ("toromq_reconnects", "Connections to Redis that were made anew")
_COUNTS = {
    "added": ("toromq_jobs_added", "Jobs added"),
    "started": ("toromq_jobs_started", "Jobs that workers were given"),
    "completed": ("toromq_jobs_completed", "Jobs stored as completed"),
    "failed": ("toromq_jobs_failed", "Jobs stored as failed for good"),
    "retried": ("toromq_jobs_retried", "Attempts that failed and will be made again"),
    "put_back": ("toromq_jobs_put_back", "Jobs that went back without an attempt"),
    "refused": ("toromq_outcomes_refused", "Outcomes that Redis refused"),
    "locks_lost": ("toromq_locks_lost", "Jobs that lost their lock while they ran"),
    "stalled": ("toromq_jobs_stalled", "Jobs of dead workers that were queued again"),
}
_TIMES = {
    "wait": ("toromq_job_wait_seconds", "From when a job was added or due until a worker had it"),
    "lateness": ("toromq_job_lateness_seconds", "From when a delayed job was due until a worker had it"),
    "handover": ("toromq_job_handover_seconds", "From when a worker had a job until its processor began"),
    "run": ("toromq_job_run_seconds", "How long the processor took"),
}
_OWN_LABELS = ("prefix", "queue", "le")


def render(labels: Mapping[str, str] | None = None) -> str:
    """What this process did so far, in the text format of Prometheus; `labels` are added to every sample."""
    more = check_labels("labels", labels, _OWN_LABELS)
    seen = snapshot()
    lines = _heading(f"{_RECONNECTS[0]}_total", _RECONNECTS[1], "counter")
    lines.append(sample(f"{_RECONNECTS[0]}_total", more, seen.reconnects))
    for field, (name, text) in _COUNTS.items():
        lines += _heading(f"{name}_total", text, "counter")
        lines += (sample(f"{name}_total", _of(queue, more), getattr(queue, field)) for queue in seen.queues)
    for field, (name, text) in _TIMES.items():
        lines += _heading(name, text, "histogram")
        for queue in seen.queues:
            times: Times = getattr(queue, field)
            own = _of(queue, more)
            lines += (sample(f"{name}_bucket", {**own, "le": bound}, count) for bound, count in times.cumulated())
            lines += (sample(f"{name}_sum", own, times.sum), sample(f"{name}_count", own, times.count))
    return "\n".join(lines) + "\n"


def _heading(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _of(queue: QueueActivity, more: Mapping[str, str]) -> dict[str, str]:
    return {"prefix": queue.prefix, "queue": queue.queue, **more}


class Collector:
    """The same for the package prometheus-client: `REGISTRY.register(Collector())`.

    Args:
        labels: added to every sample.
    """

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        """Nothing is registered or imported here."""
        self._labels = check_labels("labels", labels, _OWN_LABELS)

    def describe(self) -> list[Metric]:
        """The names alone, by which a registry finds others that are the same."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        counts = [CounterMetricFamily(name, text) for name, text in (_RECONNECTS, *_COUNTS.values())]
        return [*counts, *(HistogramMetricFamily(name, text) for name, text in _TIMES.values())]

    def collect(self) -> Iterator[Metric]:
        """What this process did so far."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        seen = snapshot()
        keys, values = list(self._labels), list(self._labels.values())
        reconnects = CounterMetricFamily(*_RECONNECTS, labels=keys)
        reconnects.add_metric(values, seen.reconnects)
        yield reconnects
        keys = ["prefix", "queue", *keys]
        for field, (name, text) in _COUNTS.items():
            counter = CounterMetricFamily(name, text, labels=keys)
            for queue in seen.queues:
                counter.add_metric([queue.prefix, queue.queue, *values], getattr(queue, field))
            yield counter
        for field, (name, text) in _TIMES.items():
            histogram = HistogramMetricFamily(name, text, labels=keys)
            for queue in seen.queues:
                times: Times = getattr(queue, field)
                histogram.add_metric([queue.prefix, queue.queue, *values], times.cumulated(), times.sum)
            yield histogram
