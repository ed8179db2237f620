"""The server under test, the processes of every peer, and what is read off both."""

from __future__ import annotations

import itertools
import time
from typing import Any

from bench.delay import Delay
from bench.peer import PEERS, Process
from tests.support.redisbox import RedisBox

_PATIENCE_S = 60.0
# Nobody but the benchmark sends these while it measures; libraries ask for `info` once, when they connect.
_OURS = ("info", "config|resetstat", "config|get")


class Bench:
    """One server, and processes of every peer: one that adds, one or more that work.

    Args:
        names: the peers.
        aof: whether the server keeps an append-only file.
        latency: milliseconds to add to each round trip between the peers and the server.
    """

    def __init__(self, names: list[str], aof: bool, latency: float = 0) -> None:
        self.aof = aof
        self.latency = latency
        self.names = names
        # A rewrite of the file in the middle would fall on whoever is measured then; `fresh` does it in between.
        extra = ["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
        self.box = RedisBox(appendonly=aof, extra=extra).start()
        self.client: Any = self.box.client()
        self.delay = Delay(self.box.port, latency) if latency else None
        self._processes: dict[tuple[str, str], Process] = {}
        self._numbers = itertools.count(1)
        #: Commands that the benchmark itself has sent to look at queues.
        self.looks = 0
        #: The most jobs of one queue that were seen active since a drain began.
        self.active = 0

    def close(self) -> None:
        """End everything."""
        for process in self._processes.values():
            process.close()
        if self.delay:
            self.delay.close()
        self.box.close()

    def alone(self, name: str) -> Bench:
        """Another one for a single peer, on a server that nobody else uses; to be closed."""
        return Bench([name], self.aof, self.latency)

    def producer(self, name: str) -> Process:
        """The process of a peer that adds."""
        return self._process(name, "producer")

    def worker(self, name: str, number: int = 1) -> Process:
        """A process of a peer that works."""
        return self._process(name, f"worker {number}")

    def dismiss(self, name: str) -> None:
        """End the processes of a peer; it gets new ones when it is asked for something."""
        for who, role in [key for key in self._processes if key[0] == name]:
            self._processes.pop((who, role)).close()

    def _process(self, name: str, role: str) -> Process:
        if (name, role) not in self._processes:
            self._processes[name, role] = Process(PEERS[name])
        return self._processes[name, role]

    def settle(self) -> None:
        """Empty the server and its file."""
        # SYNC, for by default some servers free the memory later, while the next peer is measured.
        self.client.execute_command("FLUSHALL", "SYNC")
        if self.aof:
            self.client.bgrewriteaof()
            while any(self.client.info("persistence")[f"aof_rewrite_{now}"] for now in ("in_progress", "scheduled")):
                time.sleep(0.01)

    @property
    def url(self) -> str:
        """Where the peers find the server."""
        return f"redis://127.0.0.1:{self.delay.port}/0" if self.delay else self.box.url

    def fresh(self) -> dict[str, str]:
        """Empty the server and its file, and give the place of a queue that nobody used."""
        self.settle()
        return {"url": self.url, "queue": self.name()}

    def name(self) -> str:
        """A queue's name that was not given before."""
        return f"bench-{next(self._numbers)}"

    def counts(self, queue: str) -> list[int]:
        """How many jobs wait (those with a priority or a delay included), are active, completed, failed."""
        pipe = self.client.pipeline()
        for state in ("wait", "active"):
            pipe.llen(f"bull:{queue}:{state}")
        for state in ("completed", "failed", "prioritized", "delayed", "waiting-children"):
            pipe.zcard(f"bull:{queue}:{state}")
        self.looks += len(pipe)
        wait, active, completed, failed, *others = pipe.execute()
        return [wait + sum(others), active, completed, failed]

    def completion(self, name: str, jobs: int, *queues: str) -> float:
        """Wait until so many jobs are completed, and give the time at which that was seen.

        It looks rarely at first and every millisecond at the end, so that looking costs the peer next to nothing.
        Peers with keys of their own are asked when their last job began.
        """
        if PEERS[name].foreign:
            return float(self.worker(name).ask("ended", jobs=jobs)["time"])
        begun = time.monotonic()
        while (done := self._completed(queues)) < jobs:
            spent = time.monotonic() - begun
            counts = [self.counts(queue) for queue in queues]
            check(spent < _PATIENCE_S, f"{name}: {counts} wait, are active, completed, failed, of {jobs}")
            time.sleep(min(0.05, max(0.001, spent * (jobs - done) / max(done, 1) / 2)))
        return time.monotonic()

    def _completed(self, queues: tuple[str, ...]) -> int:
        pipe = self.client.pipeline(transaction=False)
        for queue in queues:
            pipe.zcard(f"bull:{queue}:completed").llen(f"bull:{queue}:active")
        self.looks += len(pipe)
        seen = pipe.execute()
        self.active = max(self.active, *seen[1::2])
        return sum(seen[::2])

    def meter(self) -> Meter:
        """Begin to measure what the server spends."""
        return Meter(self)


class Meter:
    """What the server has spent since this was made."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._looks = bench.looks
        bench.client.config_resetstat()
        self._cpu = self._cpu_now()

    def read(self, jobs: int) -> dict[str, float]:
        """CPU, commands (those within scripts included) and script calls, per job."""
        cpu = self._cpu_now() - self._cpu
        calls = {name: int(stats["calls"]) for name, stats in self._bench.client.info("commandstats").items()}
        scripts = sum(calls.get(f"cmdstat_{name}", 0) for name in ("evalsha", "eval", "fcall"))
        ours = self._bench.looks - self._looks + sum(calls.get(f"cmdstat_{name}", 0) for name in _OURS)
        total = sum(calls.values()) - ours
        return {"server_us": cpu / jobs * 1e6, "commands": total / jobs, "scripts": scripts / jobs}

    def _cpu_now(self) -> float:
        info = self._bench.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def check(fine: bool, otherwise: str) -> None:
    """End the benchmark unless `fine`: the figures of a run that went wrong are worth nothing."""
    if not fine:
        raise SystemExit(f"bench: a check failed: {otherwise}")
