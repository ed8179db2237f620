"""``clear_logs``: the newest lines stay, or none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import NewJob, Queue


@pytest.mark.parametrize(("keep", "left"), [(0, None), (1, ["c"]), (2, ["b", "c"])])
def test_lines_go(mail: Queue, keep: int, left: Any) -> None:
    mail.add(NewJob(job_id="j"))
    mail.redis.rpush(mail.key("j:logs"), *"abc")
    assert mail.call("clear_logs", job="j", keep=keep) == (0, {"j:logs": left})


@pytest.mark.parametrize("keep", [3, 4])
def test_fewer_lines_than_may_stay(mail: Queue, keep: int) -> None:
    mail.add(NewJob(job_id="j"))
    mail.redis.rpush(mail.key("j:logs"), *"abc")
    assert mail.call("clear_logs", job="j", keep=keep) == (0, {})


@pytest.mark.parametrize("keep", [0, 5])
def test_there_are_none(mail: Queue, keep: int) -> None:
    assert mail.call("clear_logs", job="j", keep=keep) == (0, {})
