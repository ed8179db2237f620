"""``finish_and_fetch``: jobs it refuses, and jobs that are sent again because the reply was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.integration.scripts.commands import CODES, LONG_MS, NOW, End, NewJob, Queue, event

OUTCOMES: Final = ("completed", "failed", "retry", "delay", "wait")
pytestmark = pytest.mark.leaves_keys_broken("a refused job is one whose keys somebody broke")


def _corrupt(mail: Queue) -> None:
    mail.redis.delete(mail.key("a"))
    mail.redis.set(mail.key("a"), "no job")


# What happened to an active job, by what the finish says of it.
BROKEN: Final[dict[str, Callable[[Queue], Any]]] = {
    "JOB_MISSING": lambda mail: mail.redis.delete(mail.key("a")),
    "JOB_CORRUPT": _corrupt,
    "LOCK_MISSING": lambda mail: mail.redis.delete(mail.key("a:lock")),
    "LOCK_MISMATCH": lambda mail: mail.redis.set(mail.key("a:lock"), "v:1", px=LONG_MS),
    "JOB_NOT_IN_STATE": lambda mail: mail.redis.lrem(mail.key("active"), 1, "a"),
    "PENDING_CHILDREN": lambda mail: mail.redis.sadd(mail.key("a:dependencies"), "bull:x:c"),
    "FAILED_CHILDREN": lambda mail: mail.redis.zadd(mail.key("a:unsuccessful"), {"bull:x:c": NOW}),
}
OF_COMPLETED_ONLY: Final = ("PENDING_CHILDREN", "FAILED_CHILDREN")


def ending(outcome: str, **fields: Any) -> End:
    return End("a", outcome, '"ok"', '["at"]', **{"number": "" if outcome == "wait" else 5, **fields})


def before(end: End) -> int:
    """What the job counted when the end was first sent: attempts started where the end is no attempt, else made."""
    return 1 if end.outcome == "wait" or (end.outcome, end.flag) == ("delay", "") else 0


@pytest.fixture(autouse=True)
def _active(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.redis.sadd(mail.key("stalled"), "a")


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("code", BROKEN)
def test_a_refused_job_is_left_as_it_is(mail: Queue, code: str, outcome: str) -> None:
    BROKEN[code](mail)
    reply, changed = mail.finish(ending(outcome), metrics_points=5)
    if code in OF_COMPLETED_ONLY and outcome != "completed":
        assert reply[0] == [0]
        assert changed["active"] == ["b"]
        return
    assert reply == [[CODES[code]], [], 0, 0]
    # The lock is given back before the place is looked at.
    assert changed == ({"a:lock": None, "stalled": None} if code == "JOB_NOT_IN_STATE" else {})


@pytest.mark.parametrize("code", BROKEN)
def test_a_refusal_does_not_stop_the_fetch(mail: Queue, code: str) -> None:
    BROKEN[code](mail)
    mail.add(NewJob(job_id="c"))
    reply, _ = mail.finish(ending("completed"), want=1)
    assert reply[0] == [CODES[code]]
    assert [job[0] for job in reply[1][0]] == ["c"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (("JOB_MISSING", "PENDING_CHILDREN", "LOCK_MISSING"), "JOB_MISSING"),
        (("PENDING_CHILDREN", "FAILED_CHILDREN"), "PENDING_CHILDREN"),
        (("PENDING_CHILDREN", "LOCK_MISMATCH"), "PENDING_CHILDREN"),
        (("FAILED_CHILDREN", "LOCK_MISSING"), "FAILED_CHILDREN"),
        (("LOCK_MISSING", "JOB_NOT_IN_STATE"), "LOCK_MISSING"),
        (("LOCK_MISMATCH", "JOB_NOT_IN_STATE"), "LOCK_MISMATCH"),
    ],
)
def test_the_first_reason_counts(mail: Queue, broken: tuple[str, ...], said: str) -> None:
    for code in broken:
        BROKEN[code](mail)
    assert mail.finish(ending("completed")) == ([[CODES[said]], [], 0, 0], {})


def test_another_job_s_children_are_no_reason(mail: Queue) -> None:
    mail.redis.sadd(mail.key("b:dependencies"), "bull:x:c")
    reply, changed = mail.finish(ending("completed"), End("b"))
    assert reply[0] == [0, CODES["PENDING_CHILDREN"]]
    assert changed["completed"] == {"a": NOW}


# -- Sent again --------------------------------------------------------------------------------------------------------

REPEATED: Final = {
    "completed": ending("completed"),
    "completed and removed": ending("completed", keep="0::"),
    "failed": ending("failed"),
    "failed and removed": ending("failed", keep="0::"),
    "retry": ending("retry"),
    "delay that counts": ending("delay", flag="1"),
    "delay that does not count": ending("delay"),
    "wait": ending("wait"),
    "wait under its own limit": ending("wait", number=LONG_MS),
}


@pytest.mark.parametrize("end", REPEATED.values(), ids=REPEATED.keys())
def test_a_finish_sent_again_is_harmless(mail: Queue, end: End) -> None:
    mail.finish(end)
    again = mail.finish(end._replace(before=before(end)), End("b"), metrics_points=5)
    assert again.reply[0] == [0, 0]
    alone = mail.finish(end._replace(before=before(end)), metrics_points=5)
    assert alone == ([[0], [], 0, 0], {})
    assert not {"a", "a:lock", "stalled"} & again.changed.keys()
    assert again.changed["completed"].keys() - {"a"} == {"b"}
    assert again.changed["events"][0] == event("completed", "b", returnvalue='"ok"', prev="active")


@pytest.mark.parametrize("end", REPEATED.values(), ids=REPEATED.keys())
def test_a_finish_that_never_arrived_is_done_when_sent_again(mail: Queue, prefix: str, end: End) -> None:
    reply, changed = mail.finish(end._replace(before=before(end)))
    assert reply[0] == [0]
    twin = Queue(mail.redis, prefix, "twin")
    twin.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    twin.redis.sadd(twin.key("stalled"), "a")
    assert changed == twin.finish(end).changed


@pytest.mark.parametrize("end", [REPEATED["retry"], REPEATED["delay that counts"]], ids=["retry", "delay"])
def test_a_retry_that_runs_elsewhere_by_now_counts_as_done(mail: Queue, end: End) -> None:
    mail.finish(end)
    mail.finish(want=1, token="v:1", now_ms=NOW + 500)
    assert mail.finish(end._replace(before=before(end))) == ([[0], [], 0, 0], {})


@pytest.mark.parametrize("outcome", ["wait", "delay"])
def test_a_job_put_back_that_runs_elsewhere_by_now_is_left_alone(mail: Queue, outcome: str) -> None:
    mail.finish(ending(outcome))
    mail.finish(want=1, token="v:1", now_ms=NOW + 500)
    assert mail.finish(ending(outcome, before=1)) == ([[0], [], 0, 0], {})


@pytest.mark.parametrize("outcome", ["wait", "delay"])
@pytest.mark.parametrize("code", ["LOCK_MISSING", "LOCK_MISMATCH"])
def test_a_job_that_nobody_began_again_was_not_put_back(mail: Queue, outcome: str, code: str) -> None:
    BROKEN[code](mail)
    assert mail.finish(ending(outcome, before=1)) == ([[CODES[code]], [], 0, 0], {})


@pytest.mark.parametrize("outcome", ["completed", "failed", "retry"])
@pytest.mark.parametrize("code", ["LOCK_MISSING", "LOCK_MISMATCH", "PENDING_CHILDREN", "FAILED_CHILDREN"])
def test_what_does_not_stand_is_refused_again(mail: Queue, code: str, outcome: str) -> None:
    if code in OF_COMPLETED_ONLY and outcome != "completed":
        code = "LOCK_MISSING"
    BROKEN[code](mail)
    assert mail.finish(ending(outcome, before=0)) == ([[CODES[code]], [], 0, 0], {})


@pytest.mark.parametrize("difference", [{"value": '"other"'}, {"now_ms": NOW + 1}])
@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_another_worker_s_outcome_is_not_taken_for_ours(mail: Queue, outcome: str, difference: dict[str, Any]) -> None:
    mail.finish(ending(outcome))
    end = ending(outcome, before=0)._replace(**({"value": difference["value"]} if "value" in difference else {}))
    reply, changed = mail.finish(end, now_ms=difference.get("now_ms", NOW))
    assert (reply[0], changed) == ([CODES["LOCK_MISSING"]], {})


@pytest.mark.parametrize("outcome", ["retry", "delay", "wait"])
def test_a_job_that_is_gone_was_not_put_back(mail: Queue, outcome: str) -> None:
    BROKEN["JOB_MISSING"](mail)
    assert mail.finish(ending(outcome, before=0, flag="1")) == ([[CODES["JOB_MISSING"]], [], 0, 0], {})


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_a_key_that_is_no_job_was_not_finished(mail: Queue, outcome: str) -> None:
    BROKEN["JOB_CORRUPT"](mail)
    assert mail.finish(ending(outcome, before=0)) == ([[CODES["JOB_CORRUPT"]], [], 0, 0], {})


@pytest.mark.parametrize("outcome", ["completed", "retry"])
def test_a_job_named_twice_ends_once(mail: Queue, outcome: str) -> None:
    reply, changed = mail.finish(ending(outcome), ending(outcome))
    assert reply[0] == [0, CODES["LOCK_MISSING"]]
    assert len(changed["events"]) == 1
