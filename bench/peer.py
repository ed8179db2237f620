"""The peers, and a process of one."""

from __future__ import annotations

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
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Peer:
    """A library to measure.

    Args:
        title: what the table calls it.
        command: gives the command line of its driver; installs what that needs.
        backlog: which part of the backlog the drain rows give it; less than 1 for a slow one.
        lacks: rows it has no way to run.
    """

    title: str
    command: Callable[[], list[str]]
    backlog: float = 1.0
    lacks: frozenset[str] = frozenset()


PEERS = {
    "toromq": Peer("toromq", lambda: [sys.executable, "-m", "bench.peers.toromq_peer"]),
    "node": Peer(
        "Node BullMQ",
        lambda: install.node_peer(_ROOT / "bench" / "peers" / "node"),
        lacks=frozenset({"drain_def", "events_loop"}),
    ),
    "bullmq": Peer(
        "bullmq (PyPI)",
        lambda: install.python_peer("bench.peers.bullmq_peer", "bullmq==3.4.4", "hiredis==3.5.0"),
        backlog=0.2,
        lacks=frozenset({"drain_def", "events_loop"}),
    ),
}


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

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(_PATIENCE_S, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"no answer to {do}, or too late"}
        if "error" in answer:
            self._complaints.seek(0)
            raise SystemExit(f"bench: {self.title}: {answer['error']}\n{self._complaints.read()[-500:]}".rstrip())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()
