"""A proxy that makes the way to the server longer; the program itself is rust/toromq-core/examples/delay.rs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from bench import install


class Delay:
    """A process that passes on what it gets after half of the round trip's latency, in either direction."""

    def __init__(self, port: int, latency: float, profile: str = "release") -> None:
        program = install.rust_program("delay", profile)
        self._process = subprocess.Popen(
            [program, f"127.0.0.1:{port}", str(round(latency * 500))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._begun = time.monotonic()
        self.busiest = 0.0

    def cpu(self) -> float:
        """CPU seconds it has spent."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        if not stat.exists():
            return float("nan")
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def note(self, cpu: float, seconds: float) -> None:
        """Remember how busy it was while something was measured, if never before as much."""
        self.busiest = max(self.busiest, (self.cpu() - cpu) / seconds)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
