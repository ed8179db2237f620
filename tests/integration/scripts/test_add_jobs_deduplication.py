"""``add_jobs``: a job whose deduplication id another job may own."""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest

from tests.integration.scripts.commands import (
    CODES,
    NOW,
    SLOT,
    End,
    Expiring,
    NewJob,
    Queue,
    event,
    stored,
)
from tests.support.deduplication import MODES, OWNER_BORN, STATES, TTL_MS, own, window

# What an add does and what window it leaves, where the owner's had no end of its own / where it had one. The job is
# "added" where nobody owns the id, also where its owner is gone ("recovered") or gives way ("replaced"); else it is
# turned "down", perhaps without a word ("silent"), the owner is "moved" to its time, or it is "kept" for later.
TABLE: Final = """
owner                    none        elsewhere        delayed             active           missing         missing, ttl
simple                   added open  down open/old    down open/old       down open/old    recovered open  down old
throttle                 added new   down open/old    down open/old       down open/old    recovered new   down old
sliding                  added new   down new/new     down new/new        down new/new     recovered new   down new
replace                  added open  silent open/old  replaced open/open  silent open/old  recovered open  silent old
replace, ttl             added new   silent open/old  replaced open/old   silent open/old  recovered new   silent old
debounce                 added new   silent open/old  replaced new/new    silent open/old  recovered new   silent old
keep last                added open  down open/old    down open/old       kept open/open   recovered open  down old
keep last, ttl           added open  down open/old    down open/old       kept open/open   recovered open  down old
keep last, ttl, extend   added open  down open/open   down open/open      kept open/open   recovered open  down open
keep last, replace       added open  silent open/old  replaced open/open  kept open/open   recovered open  silent old
keep last, replace, ttl  added open  silent open/old  replaced open/open  kept open/open   recovered open  silent old
reschedule               added open  down open/old    moved open/old      down open/old    recovered open  down old
reschedule, ttl          added new   down open/old    moved open/old      down open/old    recovered new   down old
reschedule, sliding      added new   down new/new     moved new/new       down new/new     recovered new   down new
reschedule, replace      added open  silent open/old  replaced open/open  silent open/old  recovered open  silent old
"""
WIDTHS: Final = (25, 12, 17, 20, 17, 16, 12)
# Kept for an owner of long ago, and still there.
EARLIER: Final = {"name": "earlier", "data": "0", "opts": "{}", "jid": "e"}
JOB: Final = NewJob(1, "", "new", "[1]", '{"attempts":0}', NOW + 7, 1000)
DUE: Final = (NOW + 1007) * SLOT
ADDED: Final = [event("added", "1", name="new"), event("delayed", "1", delay=str(NOW + 1007))]


def rows() -> dict[str, dict[str, str]]:
    """The table: outcome and windows by mode and column."""

    def cells(line: str) -> list[str]:
        ends = [sum(WIDTHS[:n]) for n in range(len(WIDTHS) + 1)]
        return [line[start:end].strip() for start, end in itertools.pairwise(ends)]

    head, *body = (cells(line) for line in TABLE.strip().splitlines())
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def cases() -> list[Any]:
    """Every mode with every owner, the outcome and the window it leaves."""
    table = rows()
    assert table.keys() == MODES.keys()
    found = []
    for mode, row in table.items():
        for state in ("none", *STATES):
            for ttl in (False, True) if state != "none" else (False,):
                column = state if state in row else "elsewhere"
                outcome, left = row["missing, ttl" if state == "missing" and ttl else column].split()
                left = left.partition("/")[2] or left if ttl else left.partition("/")[0]
                name = f"{mode} - {state}{', ttl' if ttl else ''}"
                found.append(pytest.param(mode, state, ttl, outcome, left, id=name))
    return found


def rule(mode: dict[str, Any], id: str = "K") -> dict[str, Any]:
    """A mode as the script takes it."""
    names = {"keep_last_if_active": "keep_last"}
    flags = {names.get(name, name): "1" for name, value in mode.items() if value is True}
    return {"deduplication_id": id, "ttl": mode.get("ttl", 0), **flags}


@pytest.mark.parametrize(("mode", "state", "ttl", "outcome", "left"), cases())
def test_every_mode_meets_every_owner(
    mail: Queue, mode: str, state: str, ttl: bool, outcome: str, left: str
) -> None:
    own(mail.redis, mail.base, state, ttl)
    mail.put("dn:K", EARLIER)
    mail.redis.set(mail.key("id"), 1)
    reply, changed = mail.add_jobs(JOB._replace(more=rule(MODES[mode])))

    stays = outcome in ("down", "silent", "moved", "kept")
    assert reply == [0, ["o"] if stays else "1"]
    assert window(mail.redis, mail.base) == left
    expected: dict[str, Any] = {"meta": changed["meta"]}
    if not stays:
        expected["1"] = stored(name="new", data="[1]", opts=JOB.opts, timestamp=NOW + 7, delay=1000, deid="K")
        expected |= {"delayed": {"1": DUE}, "marker": {"1": NOW + 1007}, "events": ADDED}
    ended = left in ("new", "old")
    if not stays or ended != ttl:
        owner = "o" if stays else "1"
        expected["de:K"] = Expiring(owner) if ended else owner
    down = event("deduplicated", "o", deduplicationId="K", deduplicatedJobId="1")
    if outcome in ("down", "moved", "kept"):
        expected["events"] = [down]
    if outcome == "moved":
        due = OWNER_BORN + 1007
        expected |= {"o": {"delay": "1000"}, "delayed": {"o": due * SLOT}, "marker": {"1": due}}
        expected["events"] = [down, event("delayed", "o", delay=str(due))]
    if outcome == "kept":
        expected["dn:K"] = {"name": "new", "data": "[1]", "opts": JOB.opts, "jid": "1"}
    if outcome == "replaced":
        swapped = event("deduplicated", "1", deduplicationId="K", deduplicatedJobId="o")
        expected["events"] = [event("removed", "o", prev="delayed"), swapped, *ADDED]
        expected["o"] = None
    if outcome in ("recovered", "replaced"):
        expected["dn:K"] = None
    assert changed == expected
    # Extending a window without end for an owner that is gone leaves one for the next add to recover from.
    if (state, left) == ("missing", "open") and stays:
        mail.redis.delete(mail.key("de:K"))


def test_a_claimed_window_lasts_as_long_as_was_said(mail: Queue) -> None:
    mail.add(NewJob(more=rule({"ttl": TTL_MS})))
    assert TTL_MS - 60_000 < int(mail.redis.pttl(mail.key("de:K"))) <= TTL_MS


def test_a_job_without_delay_moves_its_owner_to_its_own_time(mail: Queue) -> None:
    mail.add(NewJob(delay=5000, more=rule({})))
    mail.redis.set(mail.key("id"), 2)
    job = NewJob(2, timestamp=NOW + 9, priority=3, more=rule({"reschedule": True}))
    _, changed = mail.add_jobs(job)
    assert changed["1"] == {"delay": "0"}
    assert changed["delayed"] == {"1": (NOW + 9) * SLOT}
    assert changed["marker"] == {"1": NOW + 9}


def test_an_owner_moved_to_a_moment_queues_behind_those_of_that_moment(mail: Queue) -> None:
    mail.add(NewJob(delay=5000, more=rule({})), NewJob(delay=900), NewJob(delay=900))
    mail.redis.set(mail.key("id"), 4)
    mail.add_jobs(NewJob(4, delay=900, more=rule({"reschedule": True})))
    first = (NOW + 900) * SLOT
    assert mail.snapshot()["delayed"].value == {"2": first, "3": first + 1, "1": first + 2}


@pytest.mark.parametrize("to", [{}, {"priority": 4}, {"lifo": "1"}])
def test_a_job_that_takes_the_place_of_another_goes_where_it_belongs_itself(mail: Queue, to: dict[str, Any]) -> None:
    mail.add(NewJob(delay=5000, more=rule({})))
    mail.redis.rpush(mail.key("1:logs"), "line")
    mail.redis.set(mail.key("id"), 2)
    _, changed = mail.add_jobs(NewJob(2, more=rule({"replace": True}), **to))
    assert (changed["1"], changed["1:logs"], changed["delayed"]) == (None, None, None)
    assert ("prioritized" if "priority" in to else "wait") in changed


def test_the_parent_of_a_job_that_gives_way_does_not_wait_for_it(mail: Queue) -> None:
    mail.store("p", priority=3)
    mail.redis.zadd(mail.key("waiting-children"), {"p": NOW})
    mail.add(NewJob(job_id="c", delay=5000, more=rule({})))
    family = {"parentKey": mail.key("p"), "parent": f'{{"id":"p","queueKey":"{mail.base[:-1]}"}}'}
    mail.put("c", family)
    mail.redis.sadd(mail.key("p:dependencies"), mail.key("c"))
    mail.redis.set(mail.key("id"), 2)
    _, changed = mail.add_jobs(NewJob(2, delay=5000, more=rule({"replace": True})))
    assert (changed["c"], changed["p:dependencies"], changed["waiting-children"]) == (None, None, None)
    assert changed["wait"] == ["p"]
    assert event("waiting", "p", prev="waiting-children") in changed["events"]


def test_an_own_id_that_is_taken_leaves_the_deduplication_id_alone(mail: Queue) -> None:
    mail.add(NewJob(job_id="x"))
    mail.redis.set(mail.key("id"), 2)
    reply, changed = mail.add_jobs(NewJob(2, "x", more=rule({})))
    assert reply == [0, ["x"]]
    assert changed == {"events": [event("duplicated", "x")]}


@pytest.mark.leaves_keys_broken("something else stands where a deduplication id's owner should")
def test_an_owner_that_is_no_text_stops_no_other_job(mail: Queue) -> None:
    mail.redis.rpush(mail.key("de:K"), "odd")
    mail.redis.set(mail.key("id"), 3)
    reply, changed = mail.add_jobs(NewJob(1), NewJob(2, more=rule({})), NewJob(3))
    assert reply == [0, "1", CODES["KEY_CORRUPT"], "3"]
    assert changed["wait"] == ["3", "1"]


# --- the end of the owner ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_the_last_job_turned_down_follows_the_owner(mail: Queue, outcome: str) -> None:
    mode = rule({"keep_last_if_active": True})
    mail.activate(NewJob(more=mode))
    assert mail.add(NewJob(name="b", more=mode), NewJob(job_id="x", name="c", data="[3]", more=mode)) == ["1", "1"]
    _, changed = mail.finish(End("1", outcome, number=1))
    assert changed["x"] == stored(name="c", data="[3]", timestamp=NOW, deid="K")
    assert (changed["de:K"], changed["dn:K"], changed["wait"]) == ("x", None, ["x"])
    # It owns the id in turn.
    assert mail.add(NewJob(more=rule({}))) == ["x"]


def test_a_number_taken_while_its_job_was_kept_is_exchanged(mail: Queue) -> None:
    mode = rule({"keep_last_if_active": True})
    mail.activate(NewJob(more=mode))
    mail.add(NewJob(name="kept", more=mode))
    # The counter was set back, and others have counted past the number of the job that was kept.
    mail.redis.set(mail.key("id"), 1)
    assert mail.add(NewJob(name="theirs"), NewJob(name="theirs")) == ["2", "3"]
    mail.redis.set(mail.key("id"), 1)
    _, changed = mail.finish(End("1"))
    assert changed["4"] == stored(name="kept", deid="K")
    assert (changed["de:K"], changed["wait"], changed["id"]) == ("4", ["4", "3", "2"], "4")
    assert "2" not in changed


def test_an_own_id_taken_while_its_job_was_kept_is_a_duplicate(mail: Queue) -> None:
    mode = rule({"keep_last_if_active": True})
    mail.activate(NewJob(more=mode))
    mail.add(NewJob(job_id="x", name="kept", more=mode))
    mail.add(NewJob(job_id="x", name="theirs"))
    _, changed = mail.finish(End("1"))
    assert {"x", "wait"} & changed.keys() == set()
    assert (changed["de:K"], changed["dn:K"]) == (None, None)
    assert event("duplicated", "x") in changed["events"]


# --- sent again -------------------------------------------------------------------------------------------------------

OUTCOMES: Final = [
    pytest.param({}, "wait", "o", id="turned down"),
    pytest.param({"ttl": TTL_MS, "extend": True}, "wait", "o", id="turned down and extended"),
    pytest.param({"reschedule": True}, "delayed", "o", id="the owner moved"),
    pytest.param({"keep_last_if_active": True}, "active", "o", id="kept for later"),
    pytest.param({"replace": True}, "delayed", "1", id="replaced"),
    pytest.param({}, "none", "1", id="added"),
]


@pytest.mark.parametrize("job_id", ["", "x"])
@pytest.mark.parametrize(("mode", "state", "answer"), OUTCOMES)
def test_a_job_sent_again_gets_its_answer_and_changes_nothing(
    mail: Queue, mode: dict[str, Any], state: str, answer: str, job_id: str
) -> None:
    own(mail.redis, mail.base, state, False)
    mail.redis.set(mail.key("id"), 1)
    job = JOB._replace(job_id=job_id, more=rule(mode))
    expected = [0, ["o"] if answer == "o" else job_id or "1"]
    assert mail.add_jobs(job).reply == expected
    assert mail.add_jobs(job._replace(again="1")) == (expected, {})


@pytest.mark.parametrize("job_id", ["", "x"])
@pytest.mark.parametrize("mode", [{}, {"ttl": TTL_MS}, {"keep_last_if_active": True}])
def test_a_job_turned_down_stays_so_when_its_owner_has_gone(mail: Queue, mode: dict[str, Any], job_id: str) -> None:
    mail.activate(NewJob(job_id="o", more=rule(mode)))
    since = str(mail.redis.xrevrange(mail.key("events"), count=1)[0][0])
    mail.redis.set(mail.key("id"), 2)
    job = NewJob(2, job_id, more=rule(mode))
    assert mail.add_jobs(job).reply == [0, ["o"]]
    # With its owner goes the window; a job that was kept is added under its own id.
    mail.finish(End("o", keep="0::"), now_ms=NOW + 50)
    assert mail.redis.exists(mail.key(job_id or "2")) == ("keep_last_if_active" in mode)
    assert mail.add_jobs(job._replace(again="1"), since=since) == ([0, ["o"]], {})


def test_a_job_that_was_replaced_is_not_added_again(mail: Queue) -> None:
    first, second = (NewJob(n, delay=900, more=rule({"replace": True})) for n in (1, 2))
    mail.redis.set(mail.key("id"), 2)
    assert mail.add_jobs(first).reply == [0, "1"]
    assert mail.add_jobs(second).reply == [0, "2"]
    assert mail.add_jobs(first._replace(again="1")) == ([0, "1"], {})


# --- many at once -----------------------------------------------------------------------------------------------------

BATCHES: Final = {
    name: [
        NewJob(delay=700, more=rule(mode)),
        NewJob(),
        NewJob(delay=300, more=rule(mode)),
        NewJob(job_id="x", priority=2, more=rule(mode)),
        NewJob(delay=500, more=rule(mode, "other")),
        NewJob(job_id="x", more=rule(mode, "third")),
        NewJob(lifo="1", more=rule(mode)),
        NewJob(delay=100, more=rule(mode, "other")),
        NewJob(more=rule(mode, "other")),
    ]
    for name, mode in MODES.items()
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("state", ["none", "delayed", "active", "missing"])
def test_a_batch_is_the_same_as_one_by_one(mail: Queue, prefix: str, mode: str, state: str) -> None:
    twin = Queue(mail.redis, prefix, "twin")
    jobs = [job._replace(number=n) for n, job in enumerate(BATCHES[mode], 1)]
    for queue in (mail, twin):
        own(queue.redis, queue.base, state, False)
        queue.redis.set(queue.key("id"), len(jobs))
    at_once = mail.add_jobs(*jobs)
    assert at_once.reply[1:] == [twin.add_jobs(job).reply[1] for job in jobs]
    snapshot = mail.snapshot()
    assert {k: v for k, v in snapshot.items() if not k.startswith("twin:")} == {
        k.removeprefix("twin:"): v for k, v in snapshot.items() if k.startswith("twin:")
    }
    # At least one of them was turned down or replaced.
    assert any(entry["event"] == "deduplicated" for entry in at_once.changed["events"]) or "replace" in MODES[mode]
