"""Figures of queues: what workers counted in Redis for all of them, as text for Prometheus too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toromq._guards import is_mapping
from toromq.errors import ConfigurationError

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


def check_labels(given: Any, own: Iterable[str]) -> dict[str, str]:
    """Labels for every sample, beside those that the samples have of their own."""
    if given is None:
        return {}
    if not is_mapping(given):
        raise ConfigurationError(f"global_labels: got {given!r}; allowed is a dict of names and texts")
    for name, value in given.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise ConfigurationError(f"global_labels: got the name {name!r}; allowed are letters, digits and '_'")
        if name in own:
            raise ConfigurationError(f"global_labels: {name!r} is a label of the metrics themselves; choose another")
        if not isinstance(value, str):
            raise ConfigurationError(f"global_labels.{name}: got {value!r}; allowed is a text")
    return dict(given)


def sample(name: str, labels: Mapping[str, str], value: int | float) -> str:
    """A line of Prometheus' text format."""
    return f"{name}{{{', '.join(f'{label}={_quoted(value)}' for label, value in labels.items())}}} {value}"


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
