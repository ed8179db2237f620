"""``add_log``: a job's log grows at its end."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, NewJob, Queue


@pytest.mark.parametrize(
    ("before", "keep", "count", "lines"),
    [
        ([], 0, 1, ["new"]),
        (["a", "b"], 0, 3, ["a", "b", "new"]),
        ([], 2, 1, ["new"]),
        (["a"], 2, 2, ["a", "new"]),
        (["a", "b", "c"], 2, 2, ["c", "new"]),
        (["a", "b"], 1, 1, ["new"]),
    ],
)
def test_a_line_is_appended(mail: Queue, before: list[str], keep: int, count: int, lines: list[str]) -> None:
    mail.add(NewJob(job_id="j"))
    if before:
        mail.redis.rpush(mail.key("j:logs"), *before)
    assert mail.call("add_log", job="j", line="new", keep_logs=keep) == (count, {"j:logs": lines})


def test_a_line_is_any_text(mail: Queue) -> None:
    mail.add(NewJob(job_id="j"))
    for line in ("", "two\nlines", "å\x00"):
        mail.call("add_log", job="j", line=line, keep_logs=0)
    assert mail.redis.lrange(mail.key("j:logs"), 0, -1) == ["", "two\nlines", "å\x00"]


def test_a_job_that_is_gone_gets_no_log(mail: Queue) -> None:
    assert mail.call("add_log", job="j", line="new", keep_logs=0) == (CODES["JOB_MISSING"], {})
