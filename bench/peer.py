"""The peers, and a process of one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import install

_ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 90.0
# A million jobs take minutes to add.
_PATIENCE_S_EACH_JOB = 1e-3


@dataclass(frozen=True)
class Peer:
    """A library to measure.

    Args:
        title: what the table calls it.
        command: gives the command line of its driver; installs what that needs.
        backlog: which part of the backlog the drain rows give it; less than 1 for a slow one.
        rows: what it can run; None for everything.
        lacks: what it can't, of those.
        repeats: rows in which it shows what it did in their `stand_in`, because it has only one face.
        foreign: whether its keys are not BullMQ's, so that its driver is asked what is done and what is left.
        fresh: gives the command line of a program that imports it and adds one job, but for the URL and the queue.
        ours: whether what it fails ends the benchmark; of others the header tells, and the row has no figures of them.
    """

    title: str
    command: Callable[[], list[str]]
    backlog: float = 1.0
    rows: frozenset[str] | None = None
    lacks: frozenset[str] = frozenset()
    repeats: frozenset[str] = frozenset()
    foreign: bool = False
    fresh: Callable[[], list[str]] | None = None
    ours: bool = False

    def runs(self, row: str) -> bool:
        """Whether it can run a row."""
        return row not in self.repeats | self.lacks and (self.rows is None or row in self.rows)


_NODE = _ROOT / "bench" / "peers" / "node"
_ONE_FACE = frozenset({"add_sync", "add_50_sync", "drain_def", "events_loop"})
_FOREIGN = frozenset({"add", "add_50", "drain_async", "idle"})


def _bullmq(module: str) -> list[str]:
    return install.python_peer(f"bench.peers.{module}", "bullmq==3.4.4", "hiredis==3.5.0")


def _foreign(module: str, *requirements: str, bulk: bool = False, backlog: float = 0.1) -> Peer:
    """A Python peer with keys of its own: what most queues can do is measured, the rest is `-`."""
    return Peer(
        module,
        lambda: install.python_peer(f"bench.peers.{module}_peer", *requirements),
        backlog=backlog,
        rows=_FOREIGN | ({"bulk"} if bulk else set()),
        repeats=_ONE_FACE,
        foreign=True,
    )


PEERS = {
    "toromq": Peer(
        "toromq",
        lambda: [sys.executable, "-m", "bench.peers.toromq_peer"],
        fresh=lambda: [sys.executable, "-m", "bench.peers.fresh", "toromq"],
        ours=True,
    ),
    "ceiling": Peer(
        "our ceiling",
        lambda: [install.rust_program("ceiling")],
        rows=frozenset({"add", "add_50", "bulk", "drain_async", "drain_1", "idle"}),
        ours=True,
    ),
    "node": Peer(
        "Node BullMQ",
        lambda: install.node_program(_NODE, "peer.mjs"),
        repeats=_ONE_FACE,
        fresh=lambda: install.node_program(_NODE, "fresh.mjs"),
    ),
    "bullmq": Peer(
        "bullmq (PyPI)",
        lambda: _bullmq("bullmq_peer"),
        backlog=0.1,
        # Its worker does not always go on when a window has ended: it was seen to stand still for a minute.
        lacks=frozenset({"limited"}),
        repeats=_ONE_FACE,
        fresh=lambda: [*_bullmq("fresh"), "bullmq"],
    ),
    "rq": _foreign("rq", "rq==3.0.0", "hiredis==3.5.0", bulk=True, backlog=0.025),
    "dramatiq": _foreign("dramatiq", "dramatiq[redis]==2.2.1", "hiredis==3.5.0"),
    "huey": _foreign("huey", "huey==3.5.4", "redis==7.4.1", "hiredis==3.5.0"),
    "saq": _foreign("saq", "saq[redis,hiredis]==0.26.4", "typing_extensions==4.16.0"),
    "arq": _foreign("arq", "arq==0.28.0", "hiredis==3.5.0"),
    "taskiq": _foreign("taskiq", "taskiq==0.12.6", "taskiq-redis==1.2.2", "hiredis==3.5.0"),
    "celery": _foreign("celery", "celery[redis]==5.7.0", "hiredis==3.5.0"),
}

#: Those of a plain run; `compare` takes all.
MAIN = ("toromq", "ceiling", "node", "bullmq")


class Process:
    """One driver process, which answers one request at a time."""

    def __init__(self, peer: Peer) -> None:
        self.title = peer.title
        # Libraries complain at length when they are closed; it is shown when something fails.
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            peer.command(),
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        patience = _PATIENCE_S + _PATIENCE_S_EACH_JOB * fields.get("jobs", 0)
        watchdog = threading.Timer(patience, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"no answer to {do}, or too late"}
        if "error" in answer:
            self._complaints.seek(0)
            raise SystemExit(f"bench: {self.title}: {answer['error']}\n{self._complaints.read()[-2000:]}".rstrip())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._complaints.close()
