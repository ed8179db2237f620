"""What users set on a worker, checked, and as the engine takes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import IntEnum
from typing import Any, Final, NamedTuple

from toromq._bridge import to_json
from toromq._guards import is_tuple
from toromq.errors import ConfigurationError
from toromq.options import KeepJobs, RateLimit, flag, keep_policy, milliseconds, whole

# Names that other libraries have, and what is meant by them here.
EXPLAINED: Final = {
    "autorun": "it starts when it is told to: with a `with` block around it, worker.run() or toromq.run(worker)",
    "settings": "give backoff_strategy itself",
}


class MetricsTime(IntEnum):
    """How many points of a series, of a minute each, there are in a time."""

    ONE_MINUTE = 1
    FIVE_MINUTES = 5
    FIFTEEN_MINUTES = 15
    THIRTY_MINUTES = 30
    ONE_HOUR = 60
    ONE_WEEK = 10_080
    TWO_WEEKS = 20_160
    ONE_MONTH = 80_640


class Metrics(NamedTuple):
    """Count how many jobs complete and fail in each minute, for the newest `max_data_points` minutes."""

    max_data_points: int


def engine_options(
    *,
    name: str,
    concurrency: int,
    lock_duration: int | timedelta,
    lock_renew_time: int | timedelta | None,
    skip_lock_renewal: bool,
    stalled_interval: int | timedelta,
    max_stalled_count: int,
    skip_stalled_check: bool,
    max_started_attempts: int | None,
    drain_delay: float | timedelta | None,
    limiter: RateLimit | None,
    maximum_rate_limit_delay: int | timedelta,
    run_retry_delay: int | timedelta,
    metrics: Metrics | int | None,
    remove_on_complete: bool | int | KeepJobs | None,
    remove_on_fail: bool | int | KeepJobs | None,
) -> dict[str, Any]:
    """The options of a worker as the engine takes them; raises for the first that is not allowed."""
    # What nobody set grows while nothing comes, so that a fleet of idle workers asks little of the server.
    wait = 5 if drain_delay is None else drain_delay
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 3600:
        raise ConfigurationError(f"drain_delay: got {drain_delay!r}; allowed are seconds, more than 0 to 3600")
    lock = max(1, milliseconds("lock_duration", lock_duration))
    renew = max(1, lock // 2 if lock_renew_time is None else milliseconds("lock_renew_time", lock_renew_time))
    if renew >= lock > 1:
        raise ConfigurationError(f"lock_renew_time: {renew} ms is not below lock_duration, {lock} ms")
    starts = None if max_started_attempts is None else whole("max_started_attempts", max_started_attempts, 1)
    return {
        "name": name,
        "concurrency": whole("concurrency", concurrency, 1, 100_000),
        "lock_duration": lock,
        "lock_renew_time": renew,
        "skip_lock_renewal": flag("skip_lock_renewal", skip_lock_renewal),
        "stalled_interval": max(1, milliseconds("stalled_interval", stalled_interval)),
        "max_stalled_count": whole("max_stalled_count", max_stalled_count, 0),
        "skip_stalled_check": flag("skip_stalled_check", skip_stalled_check),
        "max_started_attempts": starts,
        "drain_delay": float(seconds),
        "longest_drain_delay": 10.0 if drain_delay is None else float(seconds),
        "limiter": _limit(limiter),
        "maximum_rate_limit_delay": milliseconds("maximum_rate_limit_delay", maximum_rate_limit_delay),
        "run_retry_delay": max(1, milliseconds("run_retry_delay", run_retry_delay)),
        "metrics": _points(metrics),
        "remove_on_complete": _keep("remove_on_complete", remove_on_complete),
        "remove_on_fail": _keep("remove_on_fail", remove_on_fail),
        "paused": False,
    }


def _limit(limiter: Any) -> tuple[int, int] | None:
    if limiter is None:
        return None
    if not is_tuple(limiter) or len(limiter) != 2:
        raise ConfigurationError(f"limiter: got {limiter!r}; allowed is RateLimit(max, duration)")
    return whole("limiter.max", limiter[0], 1), max(1, milliseconds("limiter.duration", limiter[1]))


def _points(metrics: Any) -> int | None:
    if metrics is None:
        return None
    if isinstance(metrics, Metrics):
        return whole("metrics.max_data_points", metrics.max_data_points, 1, 1_000_000)
    if isinstance(metrics, bool) or not isinstance(metrics, int):
        raise ConfigurationError(
            f"metrics: got {metrics!r}; allowed is Metrics(max_data_points), or a number of minutes such as "
            "MetricsTime.ONE_WEEK"
        )
    return whole("metrics", int(metrics), 1, 1_000_000)


def _keep(option: str, given: bool | int | Mapping[str, Any] | None) -> str:
    return "" if given is None else to_json(keep_policy(option, given)).decode()
