"""What a running job is told to end by: set once, heard by everybody who asks or listens."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.support.eventually import eventually
from toromq import Job, JobCancelledError
from toromq._cancellation import Cancellation


def test_the_first_reason_stands() -> None:
    cancellation = Cancellation()
    assert (cancellation.is_set(), cancellation.reason, cancellation.fails) == (False, None, False)
    assert cancellation.set("first", fails=True)
    assert not cancellation.set("second")
    assert (cancellation.is_set(), cancellation.reason, cancellation.fails) == (True, "first", True)


def test_an_empty_reason_is_one() -> None:
    cancellation = Cancellation()
    assert cancellation.set("")
    assert cancellation.is_set()


def test_callbacks_hear_it_once_whether_they_came_before_or_after() -> None:
    cancellation = Cancellation()
    heard: list[str] = []
    for _ in range(2):
        cancellation.add_callback(heard.append)
    gone: list[str] = []
    cancellation.add_callback(gone.append)
    cancellation.remove_callback(gone.append)
    cancellation.remove_callback(gone.append)
    cancellation.set("why")
    cancellation.set("again")
    assert (heard, gone) == (["why"] * 2, [])
    cancellation.add_callback(heard.append)
    cancellation.remove_callback(heard.append)
    assert heard == ["why"] * 3


def test_a_callback_that_raises_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    def raises(reason: str) -> None:
        raise ValueError(reason)

    cancellation = Cancellation()
    heard: list[str] = []
    cancellation.add_callback(raises)
    cancellation.add_callback(heard.append)
    with caplog.at_level(logging.ERROR, "toromq"):
        cancellation.set("why")
    assert heard == ["why"]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_a_callback_may_use_the_cancellation() -> None:
    cancellation = Cancellation()
    heard: list[str] = []
    cancellation.add_callback(lambda reason: cancellation.add_callback(heard.append))
    cancellation.set("why")
    assert heard == ["why"]


def test_a_thread_can_wait_for_it() -> None:
    cancellation = Cancellation()
    assert not cancellation.wait(0)
    waited: list[bool] = []
    thread = threading.Thread(target=lambda: waited.append(cancellation.wait(20)))
    thread.start()
    eventually(lambda: cancellation._callbacks)
    cancellation.set("why")
    thread.join()
    assert waited == [True]
    assert cancellation.wait(0)
    assert cancellation._callbacks == []


def test_a_job_says_whether_it_was_cancelled() -> None:
    job: Job[None, None] = Job(None, ("7", "w:1", 1, 0, {}))
    assert (job.is_cancelled, job.cancel_reason) == (False, None)
    job.raise_if_cancelled()
    job._cancellation.set("why")
    assert (job.is_cancelled, job.cancel_reason) == (True, "why")
    with pytest.raises(JobCancelledError, match=r"^why$"):
        job.raise_if_cancelled()
