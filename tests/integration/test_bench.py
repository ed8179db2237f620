"""The benchmark: every row runs with every peer that can, at a tiny size, and its checks catch what went wrong."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from typing import Any

import pytest

from bench import install, plot, report
from bench.__main__ import measure, warming
from bench.measures import QUICK, Sizes
from bench.peer import PEERS
from bench.rows import ALIASES, BACKLOGS, ROWS, Row
from bench.server import Bench

# Beside us, what needs nothing installed that the tests do not need anyway.
_NAMES = ["toromq", "ceiling", "node", "bullmq"]
# It takes half a second for each row to end.
_OF_BULLMQ = frozenset({"add", "bulk", "drain_large", "flow", "retries"})
_TINY = dataclasses.replace(
    QUICK,
    add=20,
    add_50=50,
    bulk=1_000,
    backlog=200,
    one=50,
    large=50,
    sleep=50,
    retries=50,
    cpu=50,
    idle=3,
    events=40,
    family=20,
    beneath=50,
    delayed=50,
    lead_ms=200,
    over_ms=50,
    limit=20,
    windows=1,
    idle_s=0.1,
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        # The package is here already, and an engine as it is built for tests will do.
        here = {
            "ceiling": lambda: [install.rust_program("ceiling", "debug")],
            "bullmq": lambda: [sys.executable, "-m", "bench.peers.bullmq_peer"],
        }
        for name, command in here.items():
            patch.setitem(PEERS, name, dataclasses.replace(PEERS[name], command=command, backlog=1.0))
        opened = Bench(_NAMES, aof=True)
        try:
            yield opened
        finally:
            opened.close()


# Filling these takes minutes; they are the same function with another number.
@pytest.mark.parametrize("key", [key for key in ROWS if BACKLOGS.get(key, 0) <= 1_000])
def test_a_row_gives_its_figures_for_every_peer(bench: Bench, key: str) -> None:
    row = ROWS[key]
    results: report.Results = {key: {}}
    for name in _NAMES:
        runs = PEERS[name].runs(key) and (name != "bullmq" or key in _OF_BULLMQ)
        results[key][name] = [row.measure(bench, name, _TINY)] if runs else []
        for figures in results[key][name]:
            assert set(row.figures) <= set(figures)
            assert all(math.isfinite(figures[figure]) for figure in row.figures)

    for text in (report.plain({}, results), report.markdown({}, results), plot.svg({}, results)):
        assert row.title in text
    drawn = xml.etree.ElementTree.fromstring(plot.svg({"machine": "a < b"}, results))
    assert drawn.tag.endswith("svg")


def test_a_job_that_is_left_ends_the_benchmark(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Bench.completion

    def one_more(self: Bench, name: str, jobs: int, *queues: str) -> float:
        end = original(self, name, jobs, *queues)
        self.client.rpush(f"bull:{queues[0]}:active", "left-over")
        return end

    monkeypatch.setattr(Bench, "completion", one_more)
    with pytest.raises(SystemExit, match="a check failed: toromq"):
        ROWS["drain_async"].measure(bench, "toromq", _TINY)


def test_a_job_that_ran_twice_ends_the_benchmark(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = bench.worker("toromq")
    original = worker.ask

    def twice(do: str, **fields: Any) -> dict[str, Any]:
        answer = original(do, **fields)
        if do == "stop":
            answer["ids"].append(answer["ids"][0])
        return answer

    monkeypatch.setattr(worker, "ask", twice)
    with pytest.raises(SystemExit, match="did not run exactly once"):
        ROWS["drain_async"].measure(bench, "toromq", _TINY)


def test_more_active_jobs_than_may_be_end_the_benchmark(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Bench.completion

    def seen(self: Bench, name: str, jobs: int, *queues: str) -> float:
        end = original(self, name, jobs, *queues)
        assert 0 <= self.active <= 1
        self.active = 2
        return end

    monkeypatch.setattr(Bench, "completion", seen)
    with pytest.raises(SystemExit, match="2 jobs were active at once, of at most 1"):
        ROWS["drain_1"].measure(bench, "toromq", _TINY)


def test_a_job_that_ran_before_an_older_one_ends_the_benchmark(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = bench.worker("toromq")
    original = worker.ask

    def backwards(do: str, **fields: Any) -> dict[str, Any]:
        answer = original(do, **fields)
        return {**answer, "ids": answer["ids"][::-1]} if do == "stop" else answer

    monkeypatch.setattr(worker, "ask", backwards)
    with pytest.raises(SystemExit, match="was not the first to run"):
        ROWS["drain_1"].measure(bench, "toromq", _TINY)


def test_an_import_is_over_when_the_class_is_there(bench: Bench) -> None:
    # At each look at the clock: the start, the end of the import, the end of the add.
    program = """
import runpy, sys, time
clock, seen = time.perf_counter, []
time.perf_counter = lambda: seen.append("toromq.queue" in sys.modules) or clock()
sys.argv = ["fresh", "toromq", *sys.argv[1:]]
runpy.run_module("bench.peers.fresh")
print(seen)
"""
    command = [sys.executable, "-c", program, *bench.fresh().values()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[False, True, True]"


def test_a_round_that_only_warms_up_leaves_out_what_takes_long() -> None:
    assert warming(["add", "idle", "backlog_10k", "backlog_1M"]) == ["add", "backlog_1k"]
    assert warming(["idle"]) == ["idle"]


def test_every_peer_has_a_bar_of_its_own_colour() -> None:
    results: report.Results = {"add": {name: [{"rate": 1.0}] for name in PEERS}}
    drawn = xml.etree.ElementTree.fromstring(plot.svg({}, results))
    bars = [bar.get("fill") for bar in drawn.iter() if bar.tag.endswith("rect")][1:]
    assert len(set(bars)) == len(bars) == len(PEERS)


def test_what_a_peer_fails_is_told_and_not_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Bench.completion

    def one_more(self: Bench, name: str, jobs: int, *queues: str) -> float:
        end = original(self, name, jobs, *queues)
        if name == "node":
            self.client.rpush(f"bull:{queues[0]}:active", "left-over")
        return end

    monkeypatch.setattr(Bench, "completion", one_more)
    failed: dict[tuple[str, str], str] = {}
    results = measure(bench, ["drain_async", "drain_def", "add"], ["toromq", "node"], _TINY, 2, failed)
    assert list(failed) == [("drain_async", "node")]
    assert "a check failed: node: [0, 1, 201, 0]" in failed["drain_async", "node"]
    rounds = {key: [len(results[key][name]) for name in ("toromq", "node")] for key in results}
    assert rounds == {"drain_async": [2, 0], "drain_def": [2, 0], "add": [2, 2]}


def test_another_peer_is_first_in_each_round(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def row(key: str) -> Row:
        def note(_bench: Bench, name: str, _sizes: Sizes) -> dict[str, float]:
            asked.append((key, name))
            return {"rate": len(asked)}

        return Row(key, "", note)

    monkeypatch.setitem(ROWS, "add", row("add"))
    monkeypatch.setitem(ROWS, "bulk", row("bulk"))
    results = measure(bench, ["add", "bulk"], ["toromq", "node", "bullmq"], _TINY, 4, {})
    turns = [["toromq", "node", "bullmq"], ["node", "bullmq", "toromq"], ["bullmq", "toromq", "node"]]
    rounds = [[(key, name) for key in ("add", "bulk") for name in turn] for turn in [*turns, turns[0]]]
    assert asked == [turn for turns in rounds for turn in turns]
    assert list(results["add"]) == turns[0]
    assert results["bulk"]["node"] == [{"rate": 5}, {"rate": 10}, {"rate": 18}, {"rate": 23}]


def test_a_delay_makes_the_way_longer() -> None:
    with pytest.MonkeyPatch.context() as patch:
        build = install.rust_program
        patch.setattr(install, "rust_program", lambda name, _profile: build(name, "debug"))
        bench = Bench(["toromq"], aof=False, latency=20)
        try:
            figures = ROWS["add"].measure(bench, "toromq", _TINY)
            assert bench.delay
            assert bench.delay.cpu() >= 0
        finally:
            bench.close()
    # Nothing is faster than the way.
    assert figures["rate"] <= 50


def test_what_a_peer_repeats_is_something_it_can_run() -> None:
    for peer in PEERS.values():
        assert peer.lacks | peer.repeats | (peer.rows or frozenset()) <= set(ROWS)
        assert all(peer.runs(ROWS[key].stand_in) for key in peer.repeats if ROWS[key].stand_in in (peer.rows or ROWS))
        assert all(ROWS[key].stand_in for key in peer.repeats)


def test_the_names_of_upstreams_scenarios_are_rows() -> None:
    assert set(ALIASES) == {"queue-add", "queue-add-bulk", "worker-generic", "worker-concurrent"}
    assert set(ALIASES.values()) <= set(ROWS)


def test_a_machine_that_was_busy_is_named_in_the_header(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "names", [])
    assert "WARNING" in report.header(bench, 1, 0.6)
    assert "WARNING" not in report.header(bench, 1, 0.5)
