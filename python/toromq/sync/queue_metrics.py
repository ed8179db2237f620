# Made from ../queue_metrics.py by tools/make_sync.py; change that one.
"""Figures of a queue that its workers count in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from toromq._bridge import blocking_port as port
from toromq._job_fields import DataT, ResultT
from toromq.errors import ConfigurationError
from toromq.options import JobState, whole
from toromq.sync.queue_getters import QueueGetters

if TYPE_CHECKING:
    from toromq.metrics import MetricsType, QueueMetrics


class QueueFigures(QueueGetters[DataT, ResultT]):
    """The part of a queue that tells how much was done."""

    def get_metrics(self, type: MetricsType, start: int = 0, end: int = -1) -> QueueMetrics:
        """How many jobs completed or failed in each minute, as counted by workers with the option `metrics`.

        `start` and `end` are places in the series, from 0 for the newest point, both included; -1 is the oldest. A
        minute's jobs become a point when the first job ends after it.
        """
        from toromq.metrics import MetricsMeta, QueueMetrics, check_metrics_type  # Of no use to those who add jobs.

        bounds = whole("start", start, -(2**53)), whole("end", end, -(2**53))
        stored = port().call(self._native().get_metrics, check_metrics_type(type), *bounds)
        count, prev_ts, prev_count, length, *points = stored
        return QueueMetrics(MetricsMeta(count, prev_ts, prev_count), points, length)

    def record_job_counts_metric(self, *types: JobState) -> dict[str, int]:
        """Tell the queue's `telemetry` how many jobs are in each state, or in those given; gives the counts.

        The metric is the gauge `bullmq.queue.jobs`. Call it from time to time, in one process: it tells of the moment.

        Raises:
            ConfigurationError: the queue has no `telemetry`, or one of the states does not exist.
        """
        if self._tracing is None:
            raise ConfigurationError("telemetry: None, so there is nothing to tell; give the queue one")
        counts = self.get_job_counts(*types)
        self._tracing.job_counts(counts)
        return counts

    def export_prometheus_metrics(self, global_labels: Mapping[str, str] | None = None) -> str:
        """How many jobs are in each state, and how many ended, in the text format of Prometheus.

        Names and format are those of BullMQ. The totals only count what workers with the option `metrics` did.
        `global_labels` are added to every sample. What this process itself did is told by `toromq.metrics.render`.
        """
        from toromq.metrics import check_labels, job_counts

        labels = check_labels("global_labels", global_labels, ("queue", "state"))
        counts = self.get_job_counts()
        completed = self.get_metrics("completed", 0, 0)
        failed = self.get_metrics("failed", 0, 0)
        totals = {"completed": completed.meta.count, "failed": failed.meta.count}
        return job_counts(self.name, counts, totals, labels)
